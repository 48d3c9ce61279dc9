package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// simEnvOf is the world of a seed: some have all faults, some only a few kinds of them.
func simEnvOf(seed uint64) simEnv {
	env := simEnv{partitions: 3, workers: 3, instances: 8, keys: 5, seconds: 30,
		unknown: 30, refuse: 100, lost: 60, late: 500, crash: 20, freeze: 20, move: 40, rewind: 15, wipe: 5, recreate: 10,
		kill: 10, stale: 200, cache: 4000, skew: 3000,
		limits: machine.Limits{Answers: 8, Page: 2, Buffer: 3, Stop: 3000}}
	r := rand.New(rand.NewPCG(seed, 1))
	env.seconds = 10 + r.IntN(40)
	for _, rate := range []*int{&env.unknown, &env.lost, &env.crash, &env.freeze, &env.move, &env.rewind, &env.wipe, &env.kill, &env.late} {
		switch r.IntN(6) {
		case 0:
			*rate = 0
		case 1:
			*rate *= 3
		}
	}
	if r.IntN(3) == 0 {
		env.poison = 30
	}
	if r.IntN(3) == 0 {
		env.jump = 30
	}
	if r.IntN(4) == 0 {
		env.hot = true
	}
	if r.IntN(4) == 0 {
		env.keys, env.instances = 2, 12
	}
	if r.IntN(5) == 0 {
		env.workers = 2
	}
	if r.IntN(3) == 0 {
		env.cache = 1
	}
	env.without = r.IntN(3) == 0
	return env
}

// simRun runs a world. A panic is a violation.
func simRun(t *testing.T, seed uint64, env simEnv, rules simRules, trace func(string)) (w *world) {
	t.Helper()
	w = newWorld(seed, env, rules, trace)
	defer func() {
		if r := recover(); r != nil {
			w.violation("panic: %v\n%s", r, debug.Stack())
		}
	}()
	w.run()
	return w
}

// hash is a checksum of what the world's log has.
func (w *world) hash() string {
	h := sha256.New()
	w.eachEvent(func(p int32, offset int64, e *eventlog.Event) {
		if e.Type == eventlog.InstanceQuarantined {
			return // its reason has addresses of the stack
		}
		fmt.Fprintln(h, p, offset, string(eventlog.AppendEvent(nil, e)))
	})
	return hex.EncodeToString(h.Sum(nil))
}

// TestSameSeed runs seeds twice: the same seed gives the same log.
func TestSameSeed(t *testing.T) {
	for seed := range uint64(simSeeds / 10) {
		a, b := simRun(t, seed, simEnvOf(seed), simRules{}, nil), simRun(t, seed, simEnvOf(seed), simRules{}, nil)
		if a.hash() != b.hash() || a.count != b.count {
			t.Errorf("seed %d: two runs differ: %+v and %+v", seed, a.count, b.count)
		}
	}
}

// TestSimulation runs the owners, the pool's bookkeeping and the relays in worlds full of
// faults and audits their logs. DAGGER_SEEDS=n runs n seeds (from DAGGER_FROM on), DAGGER_SEED=n one, with trace,
// DAGGER_WITHOUT=name without a rule.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("DAGGER_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		var rules simRules
		if name := os.Getenv("DAGGER_WITHOUT"); name != "" {
			simMutations()[name](&rules)
		}
		w := simRun(t, seed, simEnvOf(seed), rules, func(line string) { fmt.Println(line) })
		t.Logf("%+v", w.count)
		for _, f := range w.faults {
			t.Error(f)
		}
		return
	}
	n := simSeeds
	if s := os.Getenv("DAGGER_SEEDS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	first := uint64(0)
	if s := os.Getenv("DAGGER_FROM"); s != "" {
		var err error
		if first, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	began, bad := time.Now(), 0
	var steps, commits, crashes, fenced, unknown, events, mended int
	seen := map[string]int{}
	for k := range uint64(n) {
		seed := first + k
		w := simRun(t, seed, simEnvOf(seed), simRules{}, nil)
		steps += w.count.steps
		commits += w.count.commits
		crashes += w.count.crashes
		fenced += w.count.fenced
		unknown += w.count.unknown
		events += w.count.events
		mended += w.count.mended
		w.happened(seen)
		if len(w.faults) > 0 {
			bad++
			t.Errorf("seed %d: %s", seed, strings.Join(w.faults[:min(3, len(w.faults))], "\n    "))
			if bad >= 10 {
				t.Fatalf("after %d seeds", k+1)
			}
		}
	}
	t.Logf("%d seeds in %.1fs: %d steps, %d commits, %d events, %d crashes, %d fencings, %d unknown outcomes, %d mended",
		n, time.Since(began).Seconds(), steps, commits, events, crashes, fenced, unknown, mended)
	t.Logf("what happened: %v", seen)
	const enough = 100 // worlds, for the rarest of what must happen; the race detector leaves time for fewer
	for _, what := range simMust {
		if seen[what] == 0 && n >= enough {
			t.Errorf("in no world: %s", what)
		}
	}
}
