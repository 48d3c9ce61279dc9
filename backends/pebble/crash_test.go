package pebble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// childDir is the variable that makes the test binary a process that applies to a store until
// it is killed.
const childDir = "PEBBLE_TEST_CHILD"

// childBatch is batch n of the child: what is in the store at event n is known from n alone.
func childBatch(n, epoch uint64) projection.Batch {
	b := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: epoch, LogID: "log", Sum: n}}
	for i := range uint64(20) {
		key := fmt.Appendf(nil, "%03d", (n*7+i)%200)
		if (n+i)%5 == 0 {
			b.Del = append(b.Del, projection.Row{Kind: projection.KindDue, Key: key})
		} else {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: key, Value: fmt.Appendf(nil, "%d %0700d", n, i)})
		}
	}
	b.Add = []projection.Delta{{Key: []byte("batches"), N: 1}}
	return b
}

// childApplies prints the event of each batch before it asks for it.
func childApplies(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s, err := Open(ctx, dir, storetest.Identity, Options{Memtables: 1 << 20, NoWAL: os.Getenv("PEBBLE_TEST_NOWAL") != ""})
	if err != nil {
		fail(err)
	}
	p, err := s.Acquire(ctx, 0, 1)
	if err != nil {
		fail(err)
	}
	w, err := p.Watermark(ctx)
	if err != nil {
		fail(err)
	}
	for n := w.N + 1; ; n++ {
		fmt.Println(n)
		if err := p.Apply(ctx, childBatch(n, 1)); err != nil {
			fail(err)
		}
	}
}

// TestKill kills a process in the middle of its applies: the store stands at an event that
// the process had come to, with exactly the rows of that event.
func TestKill(t *testing.T) {
	for _, noWAL := range []string{"", "1"} {
		t.Run("noWAL="+noWAL, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			furthest := uint64(0)
			for round := range 4 {
				asked := killAfter(t, dir, noWAL, 150+100*round)
				have := checkChild(t, dir, asked, noWAL != "")
				furthest = max(furthest, have)
			}
			if furthest == 0 {
				t.Log("no round came so far that anything was written")
			}
		})
	}
}

// killAfter runs a child for some batches and kills it; it returns the last event it named.
func killAfter(t *testing.T, dir, noWAL string, batches int) uint64 {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, "PEBBLE_TEST_NOWAL="+noWAL)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			last = n
		}
		if batches--; batches == 0 {
			_, err := Open(t.Context(), dir, storetest.Identity, Options{})
			if !errors.Is(err, projection.ErrInUse) || !strings.HasSuffix(err.Error(), fmt.Sprintf("in use by pid %d", cmd.Process.Pid)) {
				t.Errorf("open while pid %d has it: %v", cmd.Process.Pid, err)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Success() || batches > 0 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return last
}

// checkChild compares the store with what the batches up to its watermark give.
func checkChild(t *testing.T, dir string, asked uint64, noWAL bool) uint64 {
	n := checkRows(t, dir, Options{NoWAL: noWAL})
	if n > asked {
		t.Fatalf("the store stands at event %d, the child had come to %d", n, asked)
	}
	return n
}

// checkRows returns the event at which a store of such batches stands.
func checkRows(t *testing.T, dir string, options Options) uint64 {
	s, err := Open(t.Context(), dir, storetest.Identity, options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.View(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := v.Watermark(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for n := uint64(1); n <= w.N; n++ {
		b := childBatch(n, 1)
		for _, r := range b.Put {
			want[string(r.Key)] = string(r.Value)
		}
		for _, r := range b.Del {
			delete(want, string(r.Key))
		}
	}
	err = v.Dump(t.Context(), func(r projection.Row) error {
		value := want[string(r.Key)]
		if r.Kind == projection.KindCount {
			value = strconv.FormatUint(w.N, 10)
		}
		delete(want, string(r.Key))
		if string(r.Value) != value {
			return fmt.Errorf("at event %d row %s is of event %s, want %s", w.N, r.Key, firstWord(r.Value), firstWord([]byte(value)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 {
		t.Fatalf("at event %d %d rows are missing", w.N, len(want))
	}
	return w.N
}

func firstWord(b []byte) string {
	w, _, _ := strings.Cut(string(b), " ")
	return w
}
