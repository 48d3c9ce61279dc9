package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite"
)

// threeSteps is the instance as a DBOS workflow: each step's result is written before the
// next one starts.
func threeSteps(ctx dbos.Context, p params) (params, error) {
	for _, name := range [...]string{"first", "second", "third"} {
		if _, err := dbos.RunAsStep(ctx, nothing, dbos.WithStepName(name)); err != nil {
			return p, err
		}
	}
	return p, nil
}

func nothing(context.Context) (bool, error) { return true, nil }

func openDBOS(ctx context.Context, s *settings) (*opened, error) {
	db, err := createDatabase(ctx, s)
	if err != nil {
		return nil, err
	}
	o := &opened{
		storage: "PostgreSQL " + db.version, durability: "each commit is synced before it counts", server: s.postgresPID,
	}
	if err := launch(ctx, o, dbos.Config{SystemDBPool: db.pool}); err != nil {
		return nil, errors.Join(err, db.close())
	}
	end := o.close
	o.close = func() error { return errors.Join(end(), db.close()) }
	return o, nil
}

// openDBOSOnSQLite is DBOS without a server. The settings are its own but for one: with its
// synchronous=NORMAL a commit may be lost with the machine's power.
func openDBOSOnSQLite(ctx context.Context, s *settings) (*opened, error) {
	db, err := sql.Open("sqlite", "file:"+s.dir+"/dbos.db?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=foreign_keys(ON)"+
		"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, fmt.Errorf("open SQLite: %w", err)
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	o := &opened{storage: "SQLite", durability: "each commit is synced before it counts"}
	if err := db.QueryRowContext(ctx, "SELECT 'SQLite ' || sqlite_version()").Scan(&o.storage); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the version: %w", err), db.Close())
	}
	if err := launch(ctx, o, dbos.Config{SQLiteSystemDB: db}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	end := o.close
	o.close = func() error { return errors.Join(end(), db.Close()) }
	return o, nil
}

func launch(ctx context.Context, o *opened, c dbos.Config) error {
	c.AppName, c.Logger = "compare", logger
	d, err := dbos.NewContext(context.WithoutCancel(ctx), c)
	if err != nil {
		return fmt.Errorf("make a context: %w", err)
	}
	shutdown := func() error { return dbos.Shutdown(d, 20*time.Second) }
	dbos.RegisterWorkflow(d, threeSteps)
	if err := dbos.Launch(d); err != nil {
		return errors.Join(fmt.Errorf("launch: %w", err), shutdown())
	}
	o.version = moduleVersion("github.com/dbos-inc/dbos-transact-golang")
	o.close = shutdown
	o.one = func(_ context.Context, id string) error {
		h, err := dbos.RunWorkflow(d, threeSteps, params{OrderID: id, CustomerID: "7"}, dbos.WithWorkflowID(id))
		if err != nil {
			return err
		}
		_, err = h.GetResult()
		return err
	}
	return nil
}
