// Command bench is a load program: it measures the engine's whole way, through the public
// API. docs/performance.md says what came out.
//
//	go run ./bench                                  # embedded, durable, as fast as it goes
//	go run ./bench -rate 2000                       # the latency at that load
//	go run ./bench -clients 1 -instances 1000       # one instance alone on an idle engine
//	go run ./bench -waiting 1000000                 # with as many instances waiting
//	go run ./bench -duration 15m                    # a steady load, looked at each minute
//	go run ./bench -workflow listen                 # messages that find their instances
//	go run ./bench -workflow timer                  # timers, and many due at once
//	go run ./bench -workflow fold                   # rebuild and verify
//	go run ./bench -against redis://localhost:6379  # two stores in one run
//	go run ./bench -log kafka://localhost:9092/bench -store redis://localhost:6379/0
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
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

// workload measures something.
type workload func(ctx context.Context, s *settings, stderr io.Writer) (report, error)

var workloads = map[string]workload{
	"execute": execute, "listen": listen, "timer": timer, "parallel": parallel, "takeover": takeOver, "idle": idle, "asof": asOf, "fold": fold,
}

// report is what was measured: an object for -o json, or lines.
type report interface{ text(io.Writer) error }

// settings are the flags.
type settings struct {
	workflow   string
	log, store string
	against    string
	log2       string // of -against
	instances  int
	tasks      int
	clients    int
	partitions int
	payload    int
	rate       float64
	fan        int
	local      bool
	timers     int
	waiting    int
	waitFor    string
	duration   time.Duration
	sample     time.Duration
	output     string
	cpuProfile string
	memProfile string
	timeout    time.Duration
}

func (s *settings) parse(args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	names := slices.Sorted(maps.Keys(workloads))
	f.StringVar(&s.workflow, "workflow", "execute", "what to measure: "+strings.Join(names, ", "))
	f.StringVar(&s.log, "log", "", "`URL` of the log; a file: log in a temporary directory if empty")
	f.StringVar(&s.store, "store", "", "`URL` of the store; a pebble: store in a temporary directory if empty")
	f.StringVar(&s.against, "against", "", "execute: `URL` of a second store, which has its turn in every second round; each has a log of its own in a temporary directory")
	f.IntVar(&s.instances, "instances", 0, "instances to start (0: 100,000; of parallel 1,000)")
	f.IntVar(&s.tasks, "tasks", 0, "Execute tasks of an instance (0: 3; of parallel 100)")
	f.IntVar(&s.clients, "clients", 512, "clients, each of which starts one instance, waits for it and goes on")
	f.IntVar(&s.partitions, "partitions", 0, "partitions of the log (0: as they are, or the default; of takeover and asof 1)")
	f.IntVar(&s.payload, "payload", 0, "execute: bytes of the parameters beside their few fields; the log's own limit is measured too")
	f.Float64Var(&s.rate, "rate", 0, "instances (of listen: messages) a second (0: as fast as it goes; of timer 500, of -duration 1,000)")
	f.IntVar(&s.fan, "fan", 0, "listen: one message for so many waiting instances")
	f.BoolVar(&s.local, "local", false, "listen: the correlation key is the instance's id, which needs no hop between partitions")
	f.IntVar(&s.timers, "timers", 100_000, "timer: so many due at once")
	f.IntVar(&s.waiting, "waiting", 0, "execute: throughput without and with so many instances waiting, and what these cost")
	f.StringVar(&s.waitFor, "waiting-for", "message", "what they wait for: message or time")
	f.DurationVar(&s.duration, "duration", 0, "execute: a steady load for this time, looked at each -sample; idle: for how long (0: 30s); timer: of its steady part (0: 10s)")
	f.DurationVar(&s.sample, "sample", time.Minute, "of -duration")
	f.StringVar(&s.output, "o", "text", "output: text or json")
	f.StringVar(&s.cpuProfile, "cpuprofile", "", "write a CPU profile of the measured part to `FILE`")
	f.StringVar(&s.memProfile, "memprofile", "", "write a heap profile to `FILE`: at the end, with -waiting while they wait")
	f.DurationVar(&s.timeout, "timeout", 10*time.Minute, "give up after this time (beside -duration)")
	if err := f.Parse(args); err != nil {
		return err
	}
	err := errors.Join(s.check(f)...)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	defaults := func(n *int, execute, parallel int) {
		switch {
		case *n > 0:
		case s.workflow == "parallel":
			*n = parallel
		default:
			*n = execute
		}
	}
	defaults(&s.instances, 100_000, 1000)
	defaults(&s.tasks, 3, 100)
	return err
}

func (s *settings) check(f *flag.FlagSet) (mistakes []error) {
	mistake := func(bad bool, format string, args ...any) {
		if bad {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	given := map[string]bool{}
	f.Visit(func(x *flag.Flag) { given[x.Name] = true })
	mistake(f.NArg() > 0, "unexpected argument %q", f.Arg(0))
	mistake(workloads[s.workflow] == nil, "there is no -workflow %q; one of %s", s.workflow, strings.Join(slices.Sorted(maps.Keys(workloads)), ", "))
	mistake(given["instances"] && s.instances < 1 || given["tasks"] && s.tasks < 1 || s.clients < 1, "-instances, -tasks and -clients must be at least 1")
	mistake(s.payload < 0 || s.rate < 0 || s.partitions < 0 || s.fan < 0 || s.timers < 0 || s.waiting < 0 || s.duration < 0,
		"-payload, -rate, -partitions, -fan, -timers, -waiting and -duration can't be negative")
	mistake(s.sample <= 0, "-sample must be above 0")
	mistake(s.waitFor != "message" && s.waitFor != "time", "-waiting-for is message or time")
	mistake(s.output != "text" && s.output != "json", "-o is text or json")
	mistake(s.waiting > 0 && s.duration > 0, "-waiting and -duration exclude each other")
	mistake(s.against != "" && (s.log != "" || s.waiting > 0 || s.duration > 0), "-against excludes -log, -waiting and -duration")
	only := map[string]string{"against": "execute", "payload": "execute", "waiting": "execute", "waiting-for": "execute", "sample": "execute", "fan": "listen", "local": "listen", "timers": "timer"}
	for _, name := range slices.Sorted(maps.Keys(only)) {
		mistake(given[name] && s.workflow != only[name], "-%s is for -workflow %s", name, only[name])
	}
	mistake(given["duration"] && !slices.Contains([]string{"execute", "idle", "timer"}, s.workflow), "-duration is for -workflow execute, idle and timer")
	return mistakes
}

// bench runs the program and returns its exit status: 0 done, 1 failed, 2 usage, 3 what
// should be steady grew.
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
		err = write(stdout, r, s.output)
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if r, ok := r.(*steadyResult); ok && len(r.Grew) > 0 {
		return 3
	}
	return 0
}

// run does what the settings say, in directories of its own where they name none.
func run(ctx context.Context, s *settings, stderr io.Writer) (r report, err error) {
	ownLog := s.log == ""
	if s.log == "" || s.store == "" {
		dir, err := os.MkdirTemp("", "dagger-bench-")
		if err != nil {
			return nil, fmt.Errorf("make a directory: %w", err)
		}
		defer os.RemoveAll(dir)
		if s.log == "" {
			s.log, s.log2 = "file:"+dir+"/log", "file:"+dir+"/log-against"
		}
		if s.store == "" {
			s.store = "pebble:" + dir + "/store"
		}
	}
	if s.partitions == 0 && (s.workflow == "takeover" || s.workflow == "asof") {
		s.partitions = 1
	}
	if s.partitions > 0 {
		sep := "?"
		if strings.Contains(s.log, "?") {
			sep = "&"
		}
		s.log += fmt.Sprintf("%spartitions=%d", sep, s.partitions)
		s.log2 += fmt.Sprintf("?partitions=%d", s.partitions)
	}
	if ownLog {
		for _, x := range []struct{ log, store *string }{{&s.log, &s.store}, {&s.log2, &s.against}} {
			given := *x.store
			if *x.store = ownPrefix(given, strconv.FormatInt(time.Now().UnixNano(), 36)); *x.store != given {
				defer func() { err = errors.Join(err, empty(context.WithoutCancel(ctx), *x.log, *x.store)) }()
			}
		}
	}
	limit := s.timeout + s.duration
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	work := workloads[s.workflow]
	switch {
	case s.workflow != "execute":
	case s.against != "":
		work = againstStore
	case s.waiting > 0:
		work = withWaiting
	case s.duration > 0:
		work = steady
	}
	if r, err = work(ctx, s, stderr); err == nil && s.memProfile != "" && s.waiting == 0 {
		err = heapProfile(s.memProfile)
	}
	return r, err
}

// setup says what runs.
func (s *settings) setup(name string, h *host) setup {
	return setup{Workflow: name, Log: scheme(s.log), Store: scheme(s.store), CPUs: runtime.GOMAXPROCS(0), Partitions: h.engine.Log().Partitions(), Clients: s.clients, Fsync: scheme(s.log) == "file"}
}

func (s setup) head() string {
	return fmt.Sprintf("workflow           %s\nlog, store         %s, %s (fsync: %v, %d partitions), %d clients, %d CPUs\n",
		s.Workflow, s.Log, s.Store, s.Fsync, s.Partitions, s.Clients, s.CPUs)
}

// profile begins the CPU profile, if there is to be one.
func (s *settings) profile() (end func() error, err error) {
	if s.cpuProfile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(s.cpuProfile)
	if err != nil {
		return nil, fmt.Errorf("create profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("start profile: %w", err), f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}

func heapProfile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("create profile: %w", err)
	}
	runtime.GC()
	return errors.Join(pprof.WriteHeapProfile(f), f.Close())
}

func write(w io.Writer, r report, output string) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	if h, ok := r.(interface{ head() string }); ok {
		if _, err := io.WriteString(w, h.head()); err != nil {
			return err
		}
	}
	return r.text(w)
}
