package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a worker that was started.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr string // file

	mu           sync.Mutex
	acknowledged int // starts, since this process began
	completed    int
	works        int           // on so many partitions
	changed      chan struct{} // closed and replaced by each line
	exited       chan struct{}
	err          error // valid once exited
}

var processes atomic.Int64

// launch starts a worker. It is killed at the end of the test at the latest.
func launch(t *testing.T, task task) *process {
	t.Helper()
	what, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerVar+"="+string(what))
	p := &process{t: t, cmd: cmd, changed: make(chan struct{}), exited: make(chan struct{})}
	p.stderr = filepath.Join(task.Dir, fmt.Sprintf("worker-%03d.log", processes.Add(1)))
	stderr, err := os.Create(p.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.line(lines.Text())
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasPrefix(text, "acknowledged ") {
		p.acknowledged++
	}
	_, _ = fmt.Sscanf(text, "completed %d", &p.completed) // another line says something else
	_, _ = fmt.Sscanf(text, "works on %d", &p.works)
	close(p.changed)
	p.changed = make(chan struct{})
}

// until waits until something holds of the process, it ends, or the time is over.
func (p *process) until(within time.Duration, holds func(p *process) bool) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		p.mu.Lock()
		ok, changed := holds(p), p.changed
		p.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-p.exited:
			return false
		case <-timer.C:
			return false
		}
	}
}

// acks is how many starts were acknowledged since the process began.
func (p *process) acks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acknowledged
}

// kill ends the process by SIGKILL and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-p.exited
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// leave asks the process to end in order, and waits for it.
func (p *process) leave(within time.Duration) {
	p.t.Helper()
	p.stdin.Close()
	p.wait(within)
}

// wait waits until the process has ended by itself, without an error.
func (p *process) wait(within time.Duration) {
	p.t.Helper()
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Fatalf("a worker ended: %v\n%s", p.err, p.tail())
		}
	case <-time.After(within):
		p.signal(syscall.SIGQUIT) // shows what its goroutines do
		<-p.exited
		p.t.Fatalf("a worker did not end within %v; %d orders completed\n%s", within, p.completed, p.tail())
	}
}

// ended says whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// said is all that the process wrote to standard error.
func (p *process) said() string {
	text, err := os.ReadFile(p.stderr)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// tail is the end of it.
func (p *process) tail() string {
	text := p.said()
	return text[max(0, len(text)-6000):]
}
