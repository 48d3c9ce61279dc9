package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// database is an empty one of its own for each measurement.
type database struct {
	version string
	pool    *pgxpool.Pool
	close   func() error
}

// createDatabase makes a database, and a pool of connections to it.
func createDatabase(ctx context.Context, s *settings) (*database, error) {
	admin, err := pgx.Connect(ctx, s.postgres)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	name := "compare_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	d := &database{close: func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		_, err := admin.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		if err == nil {
			_, err = admin.Exec(ctx, "CHECKPOINT") // the next one need not pay for it
		}
		return errors.Join(err, admin.Close(ctx))
	}}
	if err := d.create(ctx, s, admin, name); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *database) create(ctx context.Context, s *settings, admin *pgx.Conn, name string) error {
	if err := admin.QueryRow(ctx, "SHOW server_version").Scan(&d.version); err != nil {
		return fmt.Errorf("ask for the version: %w", err)
	}
	d.version, _, _ = strings.Cut(d.version, " ")
	for _, setting := range [...]string{"fsync", "synchronous_commit"} {
		var value string
		if err := admin.QueryRow(ctx, "SHOW "+setting).Scan(&value); err != nil {
			return fmt.Errorf("ask for %s: %w", setting, err)
		}
		if value != "on" {
			return fmt.Errorf("%s is %s: that is not durable", setting, value)
		}
	}
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	c, err := pgxpool.ParseConfig(s.postgres)
	if err != nil {
		return fmt.Errorf("parse COMPARE_POSTGRES: %w", err)
	}
	c.ConnConfig.Database, c.MaxConns = name, int32(s.pool)
	d.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), c)
	if err != nil {
		return fmt.Errorf("make a pool: %w", err)
	}
	drop := d.close
	d.close = func() error {
		d.pool.Close()
		return drop()
	}
	return nil
}
