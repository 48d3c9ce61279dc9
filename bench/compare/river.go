package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// chain works the jobs: each of them inserts the next one.
type chain struct {
	river.WorkerDefaults[step]
	pool    *pgxpool.Pool
	atomic  bool // insert the next job and complete this one in one transaction
	waiters *waiters
}

// Work does nothing, and hands over to the next step or tells who waits for the last.
func (c *chain) Work(ctx context.Context, job *river.Job[step]) error {
	next := job.Args
	next.Number++
	last := next.Number > 3
	client := river.ClientFromContext[pgx.Tx](ctx)
	switch {
	case c.atomic:
		err := pgx.BeginFunc(ctx, c.pool, func(tx pgx.Tx) error {
			if !last {
				if _, err := client.InsertTx(ctx, tx, next, nil); err != nil {
					return err
				}
			}
			_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
			return err
		})
		if err != nil {
			return err
		}
	case !last:
		if _, err := client.Insert(ctx, next, nil); err != nil {
			return err
		}
	}
	if last {
		c.waiters.done(next.Instance)
	}
	return nil
}

// openRiver is the floor: a queue that runs three jobs for each instance, inserted one by
// the other. An instance counts as completed when the last has run, though River writes a
// little later, in batches, that it has; a crash may run the rest of an instance twice.
func openRiver(ctx context.Context, s *settings) (*opened, error) {
	return openQueue(ctx, s, false, "each insert is synced; completions up to 50 ms later")
}

// openRiverTx is the queue used so that no crash runs the rest of an instance twice: each
// job inserts the next one and completes in one transaction.
func openRiverTx(ctx context.Context, s *settings) (*opened, error) {
	return openQueue(ctx, s, true, "each commit is synced before it counts")
}

func openQueue(ctx context.Context, s *settings, atomic bool, durability string) (*opened, error) {
	db, err := createDatabase(ctx, s)
	if err != nil {
		return nil, err
	}
	driver := riverpgxv5.New(db.pool)
	c := &chain{pool: db.pool, atomic: atomic, waiters: &waiters{waiting: make(map[string]chan struct{})}}
	client, err := start(ctx, s, driver, c)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	return &opened{
		version: moduleVersion("github.com/riverqueue/river"), storage: "PostgreSQL " + db.version, durability: durability, server: s.postgresPID,
		one: func(ctx context.Context, id string) error {
			done := c.waiters.wait(id)
			if _, err := client.Insert(ctx, step{Instance: id, Number: 1, Params: params{OrderID: id, CustomerID: "7"}}, nil); err != nil {
				return err
			}
			return until(ctx, done)
		},
		close: func() error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			return errors.Join(client.Stop(ctx), db.close())
		},
	}, nil
}

func start(ctx context.Context, s *settings, driver *riverpgxv5.Driver, c *chain) (*river.Client[pgx.Tx], error) {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("make a migrator: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, c)
	client, err := river.NewClient(driver, &river.Config{
		Logger: logger, Workers: workers,
		// With its defaults it fetches ten times a second, which would be all that is measured.
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: max(s.clients, 100)}},
	})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	return client, nil
}
