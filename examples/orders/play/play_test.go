package main

import (
	"io"
	"strings"
	"testing"
)

// TestUsage: wrong flags end with 2, what can't be played with 1 and the last line.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"-h"}, 0}, {[]string{"-orders", "0"}, 2}, {[]string{"-first", "-1"}, 2}, {[]string{"x"}, 2}, {[]string{"-nothing"}, 2},
		{[]string{"-log", "nothing", "-orders", "3"}, 1},
	} {
		var stdout strings.Builder
		if got := run(t.Context(), c.args, &stdout, io.Discard); got != c.want {
			t.Errorf("play %v ends with %d, want %d", c.args, got, c.want)
		}
		if last := "orders=3 completed=0 stopped=0\n"; c.want == 1 && stdout.String() != last {
			t.Errorf("play %v ends with %q, want %q", c.args, stdout.String(), last)
		}
	}
}

// TestExpected: one simple instance is stopped, all else completes.
func TestExpected(t *testing.T) {
	for r, want := range map[result]bool{
		{orders: 5, completed: 7, stopped: 1}:            true,
		{orders: 5, completed: 8}:                        false,
		{orders: 5, completed: 6, stopped: 2}:            false,
		{orders: 5, completed: 6, stopped: 1, failed: 1}: false,
	} {
		if r.expected() != want {
			t.Errorf("%v is expected: %t", r, !want)
		}
	}
}

// TestMine: which commands of before the run are answered.
func TestMine(t *testing.T) {
	p := &play{options: options{first: 10, orders: 2}}
	for id, want := range map[string]bool{"ID0010": true, "ID0011": true, "ID0012": false, "ID009": false, "ID00x": false, "10": false, "": false} {
		if p.mine(id) != want {
			t.Errorf("the order %q is of this run: %t", id, !want)
		}
	}
}
