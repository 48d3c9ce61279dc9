package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// queueServers is how many of asynq's servers work here. Each takes one task after the other
// out of the queue and waits for a sync with it, so that it takes many to be fast.
const queueServers = 64

// openAsynq is the floor on Redis, with each write synced: three tasks for each instance,
// enqueued one by the other. An instance counts as completed when the last has run.
func openAsynq(ctx context.Context, s *settings) (*opened, error) {
	o := &opened{durability: "writes are synced before they count", server: s.redisPID}
	opt, err := asynq.ParseRedisURI(s.redis)
	if err != nil {
		return nil, fmt.Errorf("parse COMPARE_REDIS: %w", err)
	}
	if at, ok := opt.(asynq.RedisClientOpt); ok {
		at.PoolSize = s.clients // all that arrived meanwhile shares a sync
		opt = at
	}
	db, ok := opt.MakeRedisClient().(redis.UniversalClient)
	if !ok {
		return nil, errors.New("no client of Redis")
	}
	if o.storage, err = checkRedis(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	client := asynq.NewClientFromRedisClient(db)
	w := &waiters{waiting: make(map[string]chan struct{})}
	work := func(ctx context.Context, t *asynq.Task) error {
		var next step
		if err := json.Unmarshal(t.Payload(), &next); err != nil {
			return err
		}
		if next.Number == 3 {
			w.done(next.Instance)
			return nil
		}
		next.Number++
		return enqueue(ctx, client, next)
	}
	var servers []*asynq.Server
	for range queueServers {
		v := asynq.NewServerFromRedisClient(db, asynq.Config{
			Concurrency: max(s.clients/queueServers, 25), TaskCheckInterval: 5 * time.Millisecond, LogLevel: asynq.ErrorLevel,
		})
		if err := v.Start(asynq.HandlerFunc(work)); err != nil {
			for _, started := range servers {
				started.Shutdown()
			}
			return nil, errors.Join(fmt.Errorf("start: %w", err), db.Close())
		}
		servers = append(servers, v)
	}
	o.version = moduleVersion("github.com/hibiken/asynq")
	o.one = func(ctx context.Context, id string) error {
		done := w.wait(id)
		if err := enqueue(ctx, client, step{Instance: id, Number: 1, Params: params{OrderID: id, CustomerID: "7"}}); err != nil {
			return err
		}
		return until(ctx, done)
	}
	o.close = func() error {
		for _, v := range servers {
			v.Shutdown()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return errors.Join(db.FlushDB(ctx).Err(), db.Close())
	}
	return o, nil
}

func enqueue(ctx context.Context, client *asynq.Client, s step) error {
	payload, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = client.EnqueueContext(ctx, asynq.NewTask(s.Kind(), payload))
	return err
}

// checkRedis returns its name and version; one that may lose what it acknowledged is refused.
func checkRedis(ctx context.Context, db redis.UniversalClient) (string, error) {
	for name, want := range map[string]string{"appendonly": "yes", "appendfsync": "always"} {
		have, err := db.ConfigGet(ctx, name).Result()
		if err != nil {
			return "", fmt.Errorf("ask for %s: %w", name, err)
		}
		if have[name] != want {
			return "", fmt.Errorf("%s is %s: that is not durable", name, have[name])
		}
	}
	info, err := db.Info(ctx, "server").Result()
	if err != nil {
		return "", fmt.Errorf("ask for the version: %w", err)
	}
	_, version, _ := strings.Cut(info, "redis_version:")
	version, _, _ = strings.Cut(version, "\r\n")
	return "Redis " + version, nil
}
