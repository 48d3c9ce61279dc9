package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/godagger/dagger/workflow"
)

// tally counts what became of the orders and tells it: a line for each on standard output,
// or at a terminal a bar.
type tally struct {
	stdout, stderr io.Writer

	mu                                 sync.Mutex
	bar                                *progressbar.ProgressBar // nil: none
	lines                              bool
	orders, completed, failed, stopped int
}

func newTally(stdout, stderr io.Writer) *tally {
	t := &tally{stdout: stdout, stderr: stderr, lines: true}
	if isTerminal(stderr) && os.Getenv("TERM") != "dumb" && os.Getenv("CI") == "" {
		t.bar = progressbar.NewOptions(0, progressbar.OptionSetWriter(stderr), progressbar.OptionSetDescription("pizzas"),
			progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		t.lines = !isTerminal(stdout)
	}
	return t
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// accepted counts an order of the input.
func (t *tally) accepted() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.orders++
	if t.bar != nil {
		t.bar.ChangeMax(t.orders)
	}
}

// ended counts an order that has ended; err says how.
func (t *tally) ended(o Order, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.completed++
		if t.lines {
			fmt.Fprintf(t.stdout, "order %s completed\n", o.OrderID)
		}
	case errors.Is(err, workflow.ErrStopped):
		t.stopped++
		fmt.Fprintf(t.stderr, "order %s: %v\n", o.OrderID, err)
	default:
		t.failed++
		fmt.Fprintf(t.stderr, "order %s: %v\n", o.OrderID, err)
	}
	if t.bar != nil {
		_ = t.bar.Add(1) // a bar that can't be drawn is no reason to stop
	}
}

// complain tells what is wrong, on standard error.
func (t *tally) complain(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.stderr, "pizza: "+format+"\n", args...)
}

// summary prints the last line and says whether all orders completed.
func (t *tally) summary(elapsed time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bar != nil {
		_ = t.bar.Finish()
	}
	fmt.Fprintf(t.stdout, "orders=%d completed=%d failed=%d stopped=%d elapsed=%.1fs\n", t.orders, t.completed, t.failed, t.stopped, elapsed.Seconds())
	return t.completed == t.orders
}
