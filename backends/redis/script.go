package redis

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/projection"
)

//go:embed *.lua
var sources embed.FS

// Scripts are run by their checksum; a server that doesn't know one (a new master, one that
// was restarted) is given the source. All may be repeated: what was done is not done twice.
var (
	identityScript = script("identity.lua")
	probeScript    = script("probe.lua")
	stageScript    = script("stage.lua")
	sweepScript    = script("sweep.lua")

	acquireScript  = script("partition.lua", "acquire.lua")
	applyScript    = script("partition.lua", "apply.lua")
	countersScript = script("partition.lua", "counters.lua")
	dropScript     = script("partition.lua", "drop.lua")
	getScript      = script("partition.lua", "get.lua")
	loseScript     = script("partition.lua", "lose.lua")
	replaceScript  = script("partition.lua", "replace.lua")
	scanScript     = script("partition.lua", "scan.lua")
)

// script is one script made of the files in their order.
func script(files ...string) *client.Script {
	var source strings.Builder
	for _, name := range files {
		part, err := sources.ReadFile(name)
		if err != nil {
			panic(err) // the program was built without it
		}
		source.Write(part)
	}
	return client.NewScript(source.String())
}

// run runs a script. After a lost reply it is run again: that tells what became of the first.
func (s *Store) run(ctx context.Context, script *client.Script, keys []string, args ...any) (reply []any, err error) {
	err = s.again(ctx, func() error {
		reply, err = script.Run(ctx, s.client, keys, args...).Slice()
		return err
	})
	return reply, err
}

// tries is how often a call is made at most; between them it waits 50, 100, 200 … ms.
const tries = 5

// again calls f until it succeeds or fails for a reason that doesn't pass by itself.
func (s *Store) again(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		switch {
		case err == nil:
			return nil
		case s.closed.Load():
			return projection.ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case n == tries-1 || !passes(err):
			return err
		}
		wait := 50 * time.Millisecond << n
		timer := time.NewTimer(wait + rand.N(wait/4))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// passes says whether an error is one of the way to the server, or of a server that is being
// replaced. What the server said otherwise, it will say again.
func passes(err error) bool {
	var said client.Error
	if !errors.As(err, &said) {
		return true
	}
	for _, start := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"} {
		if client.HasErrorPrefix(err, start) {
			return true
		}
	}
	return false
}

// refusal turns a script's reply into the error that it is; epoch is what was asked for.
func refusal(reply []any, epoch uint64) error {
	switch status := text(first(reply)); status {
	case "ok", "applied":
		return nil
	case "fenced":
		have, err := strconv.ParseUint(text(reply[1]), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: its epoch is %q", projection.ErrStateLost, text(reply[1]))
		}
		return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, have)
	case "lost":
		return fmt.Errorf("%w: %s", projection.ErrStateLost, text(reply[1]))
	case "moved":
		return fmt.Errorf("%w: another process builds this partition", projection.ErrFenced)
	case "none":
		return fmt.Errorf("%w: the server has forgotten the partition", projection.ErrStateLost)
	case "refused":
		return fmt.Errorf("redis: the server refuses the write: %s", text(reply[1]))
	default:
		return fmt.Errorf("redis: unknown reply %q of a script", status)
	}
}

func first(reply []any) any {
	if len(reply) == 0 {
		return nil
	}
	return reply[0]
}

// text is a reply that is a string; "" for nil.
func text(v any) string {
	s, _ := v.(string)
	return s
}

// epochText is an epoch so that text compares as numbers do.
func epochText(epoch uint64) string { return fmt.Sprintf("%020d", epoch) }
