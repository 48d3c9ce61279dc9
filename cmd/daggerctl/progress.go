package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// plainEvery is how often long work says how far it is where there is no terminal.
const plainEvery = 5 * time.Second

// progress shows how far long work is.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	what  string
	total int64
	done  map[int32]int64
	bar   *progressbar.ProgressBar
	plain bool
	last  time.Time
	began time.Time
	now   func() time.Time
}

// newProgress shows work of a size on standard error: a bar at a terminal, else a line now
// and then.
func (e *env) newProgress(what string, total int64) *progress {
	p := &progress{w: e.stderr, what: what, total: total, done: map[int32]int64{}, last: e.now(), began: e.now(), now: e.now}
	mode := e.progress
	if mode == "auto" {
		mode = "plain"
		f, ok := e.stderr.(*os.File)
		if ok && term.IsTerminal(int(f.Fd())) && e.getenv("TERM") != "dumb" && e.getenv("CI") == "" {
			mode = "bar"
		}
	}
	switch mode {
	case "bar":
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(e.stderr), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("records"), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true))
		_ = p.bar.RenderBlank()
	case "plain":
		p.plain = true
	}
	return p
}

// set says how far a partition is.
func (p *progress) set(partition int32, done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[partition] = done
	var sum int64
	for _, n := range p.done {
		sum += n
	}
	if p.bar != nil {
		_ = p.bar.Set64(min(sum, p.total))
	}
	if p.plain && p.now().Sub(p.last) >= plainEvery {
		p.last = p.now()
		fmt.Fprintf(p.w, "%s: %d of %d records (%d%%)%s\n", p.what, sum, p.total, 100*sum/max(p.total, 1), p.rate(sum))
	}
}

// end takes the bar away.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// rate says how fast it goes, and when it will be done at that.
func (p *progress) rate(sum int64) string {
	took := p.now().Sub(p.began).Seconds()
	if sum <= 0 || took <= 0 {
		return ""
	}
	left := time.Duration(float64(p.total-sum) * took / float64(sum) * float64(time.Second))
	return fmt.Sprintf(", %.0f a second, about %v left", float64(sum)/took, max(0, left).Round(time.Second))
}
