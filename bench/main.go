// Command bench is a load program: many clients start instances of a workflow of n tasks
// that do nothing, and wait for each to complete. It measures the whole way, through the
// public API. docs/performance.md says what came out.
//
//	go run ./bench                                  # embedded, durable, as fast as it goes
//	go run ./bench -rate 2000                       # the latency at that load
//	go run ./bench -clients 1 -instances 1000       # one instance alone on an idle engine
//	go run ./bench -log kafka://localhost:9092/bench -store redis://localhost:6379/0
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	_ "github.com/godagger/dagger/backends/all"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(bench(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// settings are the flags.
type settings struct {
	log, store string
	instances  int
	tasks      int
	clients    int
	partitions int
	payload    int
	rate       float64
	output     string
	cpuProfile string
	timeout    time.Duration
}

func (s *settings) parse(args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.log, "log", "", "`URL` of the log; a file: log in a temporary directory if empty")
	f.StringVar(&s.store, "store", "", "`URL` of the store; a pebble: store in a temporary directory if empty")
	f.IntVar(&s.instances, "instances", 100_000, "instances to start")
	f.IntVar(&s.tasks, "tasks", 3, "Execute tasks of an instance")
	f.IntVar(&s.clients, "clients", 512, "clients, each of which starts one instance, waits for it and goes on")
	f.IntVar(&s.partitions, "partitions", 0, "partitions of the log (0: as they are, or the default)")
	f.IntVar(&s.payload, "payload", 0, "bytes of the parameters beside their few fields")
	f.Float64Var(&s.rate, "rate", 0, "instances to start a second (0: as fast as it goes)")
	f.StringVar(&s.output, "o", "text", "output: text or json")
	f.StringVar(&s.cpuProfile, "cpuprofile", "", "write a CPU profile of the measured part to `FILE`")
	f.DurationVar(&s.timeout, "timeout", 10*time.Minute, "give up after this time")
	if err := f.Parse(args); err != nil {
		return err
	}
	var mistakes []error
	if f.NArg() > 0 {
		mistakes = append(mistakes, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if s.instances < 1 || s.tasks < 1 || s.clients < 1 {
		mistakes = append(mistakes, errors.New("-instances, -tasks and -clients must be at least 1"))
	}
	if s.payload < 0 || s.rate < 0 || s.partitions < 0 {
		mistakes = append(mistakes, errors.New("-payload, -rate and -partitions can't be negative"))
	}
	if s.output != "text" && s.output != "json" {
		mistakes = append(mistakes, errors.New("-o is text or json"))
	}
	err := errors.Join(mistakes...)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return err
}

// bench runs the program and returns its exit status: 0 done, 1 failed, 2 usage.
func bench(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	if err := s.parse(args, stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	r, err := run(ctx, &s, stderr)
	if err == nil {
		err = r.write(stdout, s.output)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// run does what the settings say, in directories of its own where they name none.
func run(ctx context.Context, s *settings, stderr io.Writer) (r *result, err error) {
	if s.log == "" || s.store == "" {
		dir, err := os.MkdirTemp("", "dagger-bench-")
		if err != nil {
			return nil, fmt.Errorf("make a directory: %w", err)
		}
		defer os.RemoveAll(dir)
		if s.log == "" {
			s.log = "file:" + dir + "/log"
		}
		if s.store == "" {
			s.store = "pebble:" + dir + "/store"
		}
	}
	if s.partitions > 0 {
		sep := "?"
		if strings.Contains(s.log, "?") {
			sep = "&"
		}
		s.log += fmt.Sprintf("%spartitions=%d", sep, s.partitions)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("not done after %v", s.timeout))
	defer cancel()
	l, err := openLoad(ctx, s, stderr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := l.warmUp(ctx); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	if s.cpuProfile != "" {
		f, err := os.Create(s.cpuProfile)
		if err != nil {
			return nil, fmt.Errorf("create profile: %w", err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, fmt.Errorf("start profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	return l.measure(ctx, stderr)
}

// result is what was measured.
type result struct {
	Workflow             string  `json:"workflow"`
	Log                  string  `json:"log"`
	Store                string  `json:"store"`
	CPUs                 int     `json:"cpus"`
	Partitions           int32   `json:"partitions"`
	Clients              int     `json:"clients"`
	Payload              int     `json:"payload"`
	Rate                 float64 `json:"rate"` // wanted; 0 = as fast as it goes
	Instances            int     `json:"instances"`
	ElapsedS             float64 `json:"elapsed_s"`
	InstancesPerSecond   float64 `json:"instances_per_second"`
	TransitionsPerSecond float64 `json:"transitions_per_second"` // status changes of tasks
	LatencyMS            latency `json:"latency_ms"`             // from start to completed
	CPUS                 float64 `json:"cpu_s"`                  // of this process, user and system
	PeakRSSMB            float64 `json:"peak_rss_mb"`
	LogBytesPerInstance  float64 `json:"log_bytes_per_instance"` // values and headers of its events
	EventsPerInstance    float64 `json:"events_per_instance"`
	Fsync                bool    `json:"fsync"` // each commit was synced to this machine's disk
}

// latency is a distribution.
type latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (r *result) write(w io.Writer, output string) error {
	r.CPUs = runtime.GOMAXPROCS(0)
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	_, err := fmt.Fprintf(w, `workflow           %s
log, store         %s, %s (fsync: %v, %d partitions)
instances          %d in %.2f s by %d clients on %d CPUs
throughput         %.0f instances/s, %.0f transitions/s
latency            p50 %.2f ms, p99 %.2f ms, max %.2f ms
cost               %.2f CPU seconds (%.0f us an instance), peak %.0f MB
log                %.1f events and %.0f bytes an instance
`, r.Workflow, r.Log, r.Store, r.Fsync, r.Partitions, r.Instances, r.ElapsedS, r.Clients, r.CPUs, r.InstancesPerSecond, r.TransitionsPerSecond,
		r.LatencyMS.P50, r.LatencyMS.P99, r.LatencyMS.Max, r.CPUS, r.CPUS/float64(r.Instances)*1e6, r.PeakRSSMB, r.EventsPerInstance, r.LogBytesPerInstance)
	return err
}
