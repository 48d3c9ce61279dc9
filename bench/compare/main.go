// Command compare does the same work with several systems in one run: clients start
// instances of three tasks that do nothing, each waits for its own and starts the next. What
// counts is the ratio between the systems; docs/performance.md says how to read it.
//
// run.sh starts the PostgreSQL and the Redis that the others need, and stops them:
//
//	bench/compare/run.sh                       # all systems, three rounds
//	bench/compare/run.sh -clients 64 -o json
//	KAFKA_BROKERS=localhost:9092 bench/compare/run.sh
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(compare(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// settings are the flags, and what run.sh says in the environment.
type settings struct {
	systems  string
	clients  int
	rounds   int
	warmUp   time.Duration
	duration time.Duration
	pool     int
	output   string
	dir      string
	kafkaPID int
	one      string // measure this one in this process

	postgres    string // URL; in the environment, because it has a password
	postgresPID int
	redis       string // likewise
	redisPID    int
	kafka       string // host:port,...
}

func (s *settings) parse(args []string, stderr io.Writer) error {
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.systems, "systems", "", "comma-separated `names` of systems; all that can run here if empty")
	f.IntVar(&s.clients, "clients", 512, "clients, each of which starts one instance, waits for it and goes on")
	f.IntVar(&s.rounds, "rounds", 3, "rounds; each measures every system once, and the medians count")
	f.DurationVar(&s.warmUp, "warmup", 3*time.Second, "work before the measured part of each round")
	f.DurationVar(&s.duration, "duration", 10*time.Second, "length of the measured part")
	f.IntVar(&s.pool, "pool", 50, "connections to PostgreSQL")
	f.StringVar(&s.output, "o", "text", "output: text or json")
	f.StringVar(&s.dir, "dir", "", "`directory` for what the embedded systems store; a temporary one if empty")
	f.IntVar(&s.kafkaPID, "kafka-pid", 0, "process of the broker, so that its CPU time counts as PostgreSQL's does")
	f.StringVar(&s.one, "one", "", "measure the system of this `name` once, in this process, and print one object")
	if err := f.Parse(args); err != nil {
		return err
	}
	var mistakes []error
	if f.NArg() > 0 {
		mistakes = append(mistakes, fmt.Errorf("unexpected argument %q", f.Arg(0)))
	}
	if s.clients < 1 || s.rounds < 1 || s.pool < 1 {
		mistakes = append(mistakes, errors.New("-clients, -rounds and -pool must be at least 1"))
	}
	if s.duration <= 0 || s.warmUp <= 0 {
		mistakes = append(mistakes, errors.New("-duration and -warmup must be positive"))
	}
	if s.output != "text" && s.output != "json" {
		mistakes = append(mistakes, errors.New("-o is text or json"))
	}
	s.postgres, s.redis, s.kafka = os.Getenv("COMPARE_POSTGRES"), os.Getenv("COMPARE_REDIS"), os.Getenv("KAFKA_BROKERS")
	for name, pid := range map[string]*int{"COMPARE_POSTGRES_PID": &s.postgresPID, "COMPARE_REDIS_PID": &s.redisPID} {
		if value := os.Getenv(name); value != "" {
			if _, err := fmt.Sscan(value, pid); err != nil {
				mistakes = append(mistakes, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	err := errors.Join(mistakes...)
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
	}
	return err
}

// compare runs the program and returns its exit status: 0 done, 1 failed, 2 usage.
func compare(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var s settings
	if err := s.parse(args, stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if err := s.run(ctx, args, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 1
	}
	return 0
}

func (s *settings) run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if s.one != "" {
		r, err := s.measureOne(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(stdout).Encode(r)
	}
	names, err := s.chosen()
	if err != nil {
		return err
	}
	measured := make(map[string][]measurement)
	for round := range s.rounds {
		for _, name := range names {
			fmt.Fprintf(stderr, "round %d of %d: %s\n", round+1, s.rounds, name)
			m, err := inProcess(ctx, name, args, stderr)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			measured[name] = append(measured[name], m)
		}
	}
	return write(stdout, s.output, summarize(names, measured))
}

// chosen are the systems to measure: those named, or all that have what they need.
func (s *settings) chosen() ([]string, error) {
	var names []string
	if s.systems == "" {
		for _, y := range systems {
			if s.has(y.needs) {
				names = append(names, y.name)
			}
		}
		return names, nil
	}
	for name := range strings.SplitSeq(s.systems, ",") {
		y, err := find(name)
		if err != nil {
			return nil, err
		}
		if !s.has(y.needs) {
			return nil, fmt.Errorf("%s needs %s", name, y.needs)
		}
		names = append(names, name)
	}
	return names, nil
}

// has says whether the environment has what a system needs.
func (s *settings) has(need string) bool { return need == "" || os.Getenv(need) != "" }

func find(name string) (system, error) {
	k := slices.IndexFunc(systems, func(y system) bool { return y.name == name })
	if k < 0 {
		return system{}, fmt.Errorf("no system is called %q", name)
	}
	return systems[k], nil
}

// inProcess measures a system in a process of its own: its CPU time, its heap and what it
// leaves behind are nobody else's.
func inProcess(ctx context.Context, name string, args []string, stderr io.Writer) (measurement, error) {
	self, err := os.Executable()
	if err != nil {
		return measurement{}, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, append(slices.Clone(args), "-one", name)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second // some of them go on trying without their server
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return measurement{}, err
	}
	var m measurement
	if err := json.Unmarshal(out, &m); err != nil {
		return m, fmt.Errorf("read the measurement: %w", err)
	}
	return m, nil
}
