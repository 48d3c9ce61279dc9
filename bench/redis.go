package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// ownPrefix gives a store in Redis keys of its own, where the URL names none: a server may have
// had a load before.
func ownPrefix(store, run string) string {
	u, err := url.Parse(store)
	if err != nil || scheme(store) != "redis" || u.Query().Has("prefix") {
		return store
	}
	q := u.Query()
	q.Set("prefix", "bench-"+run)
	u.RawQuery = q.Encode()
	return u.String()
}

// empty drops what a load on a log has left in its store.
func empty(ctx context.Context, log, store string) error {
	l, err := eventlog.Open(ctx, log)
	if err != nil {
		return err
	}
	return errors.Join(drop(ctx, l, store), l.Close())
}

func drop(ctx context.Context, log eventlog.Log, store string) error {
	s, err := projection.Open(ctx, store, projection.Identity{App: log.App(), Partitions: log.Partitions()})
	if err != nil {
		return err
	}
	for p := range log.Partitions() {
		err = errors.Join(err, s.Drop(ctx, p, math.MaxUint64))
	}
	return errors.Join(err, s.Close())
}

// redisBytes is the memory that a Redis server's data takes; 0 where it is none, or does not say.
func redisBytes(store string) int64 {
	u, err := url.Parse(store)
	if err != nil || scheme(store) != "redis" || u.User != nil {
		return 0
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		return 0
	}
	defer c.Close()
	if _, err := io.WriteString(c, "INFO memory\r\n"); err != nil {
		return 0
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), ":"); name == "used_memory" {
			n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n
		}
	}
	return 0
}

// storeBytes is what a store takes: the files of its directory, or the server's memory.
func storeBytes(store string) int64 {
	if n := dirBytes(store); n > 0 {
		return n
	}
	return redisBytes(store)
}
