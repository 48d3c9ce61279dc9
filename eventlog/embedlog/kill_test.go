package embedlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

const killedDir = "EMBEDLOG_TEST_KILLED_DIR"

// TestKilledChild is the child of TestKill: it commits transactions of two owners and says
// so on standard output, until it is killed.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(killedDir)
	if dir == "" {
		t.Skip("only as a child of TestKill")
	}
	l, err := Open(t.Context(), dir, Options{Partitions: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.EnsureTopic(t.Context(), "messages", 1); err != nil {
		t.Fatal(err)
	}
	if err := l.Announce("http://localhost:1"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for p := range int32(2) {
		wg.Go(func() {
			n := len(readAll(t, l, eventlog.EventsTopic("dagger"), p)) / 2
			o, err := l.Own(t.Context(), p)
			if err != nil {
				t.Error(err)
				return
			}
			for i := n; ; i++ {
				events := [][]byte{fmt.Appendf(nil, "%d.0", i), fmt.Appendf(nil, "%d.1", i)}
				m := eventlog.Record{Topic: "messages", Value: fmt.Appendf(nil, "%d:%d", p, i)}
				if _, err := o.Append(t.Context(), events, make([]eventlog.Type, 2), []eventlog.Record{m}); err != nil {
					t.Error(err)
					return
				}
				if err := o.Commit(t.Context()); err != nil {
					t.Error(err)
					return
				}
				fmt.Printf("acked %d %d\n", p, i)
			}
		})
	}
	wg.Wait()
}

// What a process that was killed had acknowledged is there, whole transactions only; while
// it lived, nobody else could open the directory.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := [2]int{-1, -1}
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledChild$")
		child.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for seen := 0; lines.Scan(); seen++ {
			var p, i int
			if _, err := fmt.Sscanf(lines.Text(), "acked %d %d", &p, &i); err != nil {
				t.Fatalf("the child says: %s", lines.Text())
			}
			acked[p] = i
			switch seen {
			case 10:
				_, err := Open(t.Context(), dir, Options{})
				if want := fmt.Sprintf("in use by pid %d (http://localhost:1)", child.Process.Pid); !errors.Is(err, eventlog.ErrInUse) || !strings.Contains(err.Error(), want) {
					t.Errorf("open while the child has it: %v, want %s", err, want)
				}
			case 300:
				cancel() // kill -9; go on reading what it had said
			}
		}
		cancel()
		_ = child.Wait()

		l, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		messages := map[string]int{}
		for _, r := range readAll(t, l, "messages", 0) {
			messages[string(r.Value)]++
		}
		total := 0
		for p := range 2 {
			events := readAll(t, l, eventlog.EventsTopic("dagger"), int32(p))
			for n, e := range events {
				if want := fmt.Sprintf("%d.%d", n/2, n%2); string(e.Value) != want || e.Offset != int64(n) {
					t.Fatalf("round %d: event %d is %s at offset %d, want %s", round, n, e.Value, e.Offset, want)
				}
			}
			if len(events)%2 != 0 || len(events)/2 <= acked[p] {
				t.Errorf("round %d: partition %d has %d events, transaction %d was acknowledged", round, p, len(events), acked[p])
			}
			for i := range len(events) / 2 {
				if n := messages[fmt.Sprintf("%d:%d", p, i)]; n != 1 {
					t.Errorf("round %d: transaction %d of %d has %d messages", round, i, p, n)
				}
			}
			total += len(events) / 2
		}
		if len(messages) != total {
			t.Errorf("round %d: %d messages of %d transactions", round, len(messages), total)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
