package machine

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios come to into their files")

// TestScenarios plays testdata/*.txt: requests in; answers, events, messages, what other
// partitions are told, and states out, on the lines that begin with "|". testdata/README
// explains the lines.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	all := &seen{events: map[eventlog.Type]int{}, answers: map[string]int{}}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &scenario{t: t, seen: all, letters: map[int]bool{}}
			got := s.play(string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(lines(string(want)), lines(got)); diff != "" {
				t.Errorf("%s (-file +now; -rewrite takes what is now):\n%s", file, diff)
			}
		})
	}
	all.check(t, declared(t, "../../eventlog/event.go", `(?m)^\t(\w+)\s+Type = "`, eventType), declared(t, "turn.go", `(?m)^\t\w+\s+= "([^"]+)"`, func(s string) string { return s }))
}

func eventType(s string) eventlog.Type { return eventlog.Type(s) }

// declared are the constants of a source file: a new one needs a scenario.
func declared[T any](t *testing.T, file, pattern string, as func(string) T) (l []T) {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1) {
		l = append(l, as(m[1]))
	}
	if len(l) < 10 {
		t.Fatalf("%s declares %v: the pattern is out of date", file, l)
	}
	return l
}

// scenario is one file being played.
type scenario struct {
	history []recorded
	t       *testing.T
	w       *world
	seen    *seen
	out     strings.Builder
	line    string
	batch   []eventlog.Request
	batchOn *part
	offset  int64
	letters map[int]bool
	judge   *audit.Auditor
	quiet   map[string]int // counts instead of events
}

func (s *scenario) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%q: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *scenario) say(format string, args ...any) {
	if s.quiet != nil {
		return
	}
	s.out.WriteString("| " + s.readable(fmt.Sprintf(format, args...)) + "\n")
}

var times = regexp.MustCompile(`\b1[67]\d{11}\b`)

// readable shows times by what they are after the beginning, and plans by name.
func (s *scenario) readable(line string) string {
	line = times.ReplaceAllStringFunc(line, func(m string) string {
		ms, _ := strconv.ParseInt(m, 10, 64)
		d := time.Duration(ms-epoch) * time.Millisecond
		if d < 0 {
			return d.String()
		}
		return "+" + d.String()
	})
	for hash, p := range s.w.plans {
		line = strings.ReplaceAll(line, hash, fmt.Sprintf("%s@%d", p.Name, p.Version))
	}
	return strings.TrimRight(line, " ")
}

func (s *scenario) play(text string) string {
	var plan []string
	var name string
	finishPlan := func() {
		if plan != nil {
			s.addPlan(name, plan)
			plan = nil
		}
	}
	s.begin(1)
	for _, line := range lines(strings.TrimRight(text, "\n")) {
		if strings.HasPrefix(line, "|") {
			continue
		}
		s.line = line
		if !strings.HasPrefix(line, "  ") {
			finishPlan()
		}
		s.out.WriteString(line + "\n")
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0] == "#":
		case strings.HasPrefix(line, "  "):
			plan = append(plan, line)
		case f[0] == "plan":
			name, plan = strings.Join(f[1:], " "), []string{}
		default:
			s.do(f)
		}
	}
	finishPlan()
	if err := s.w.same(); err != nil {
		s.t.Error(err)
	}
	s.judged()
	return s.out.String()
}

// begin makes a world whose events an auditor sees.
func (s *scenario) begin(partitions int) {
	s.w, s.judge = newWorld(partitions), audit.New(int32(partitions), audit.Options{})
	s.history = nil
	s.w.onEvent = func(p *part, e *eventlog.Event, _, _ *Instance) {
		s.judge.Event(p.s.Partition, int64(e.N), e)
		s.history = append(s.history, recorded{p.s.Partition, eventlog.AppendEvent(nil, e)})
	}
}

// judged reports what the auditor found in the world that ends.
func (s *scenario) judged() {
	s.t.Helper()
	if err := s.judge.Finish().Err(); err != nil {
		s.t.Error(err)
	}
}

// addPlan reads "Name 1" and one task a line.
func (s *scenario) addPlan(name string, tasks []string) {
	f := strings.Fields(name)
	version, _ := strconv.Atoi(f[1])
	var nodes []Node
	for _, line := range tasks {
		n := Node{}
		for k, x := range strings.Fields(line) {
			name, value, _ := strings.Cut(x, "=")
			switch {
			case k == 0:
				n.Path = x
			case k == 1:
				n.Kind = eventlog.Kind(x)
			case name == "any":
				n.Any = true
			case name == "waitall":
				n.WaitAll = true
			case name == "continue":
				n.Continue = true
			case name == "reprocess":
				n.Reprocess = true
			case name == "one":
				n.One = true
			case name == "collect":
				n.Collect = true
			case name == "deadlineat":
				n.DeadlineAt = true
			case name == "deadlinefails":
				n.DeadlineFails = true
			case name == "deadline":
				n.Deadline = s.ms(value)
			case name == "goto":
				n.Goto, n.Gotos = value, 2
			case name == "skipto":
				n.SkipTo = value
			case name == "concurrency":
				n.Concurrency = s.number(value)
			case name == "topic":
				n.Topic = value
			case name == "key":
				n.Key = value
			case name == "ttl":
				n.TTL = s.ms(value)
			case name == "timeout":
				n.Timeout = s.ms(value)
			case name == "retry":
				r := strings.Split(value, "/")
				n.Retry = &Retry{}
				n.Retry.Attempts, _ = strconv.Atoi(r[0])
				n.Retry.Delay = s.ms(r[1])
				if len(r) > 2 {
					n.Retry.MaxDelay = s.ms(r[2])
				}
			default:
				s.fail("unknown %s", x)
			}
		}
		nodes = insert(nodes, "", n)
	}
	of := Plan{Name: f[0], Version: version, Root: nodes}
	if len(f) > 2 {
		of.Retain = s.ms(strings.TrimPrefix(f[2], "retain="))
	}
	p, err := Build(of)
	if err != nil {
		s.fail("%v", err)
	}
	s.w.addPlan(p)
}

// insert puts a node below those that its path names; processes need no line of their own.
func insert(nodes []Node, prefix string, n Node) []Node {
	first, _, inside := strings.Cut(strings.TrimPrefix(n.Path, prefix), "/")
	last := len(nodes) - 1
	if at := strings.IndexByte(first, '@'); at >= 0 { // of a process that has no line
		if last < 0 || nodes[last].Path != prefix+first[:at] {
			nodes, last = append(nodes, Node{Path: prefix + first[:at], Kind: eventlog.Process}), last+1
		}
		nodes[last].Attached = append(nodes[last].Attached, n)
		return nodes
	}
	if of, item := strings.CutSuffix(first, "[]"); item && last >= 0 && nodes[last].Path == prefix+of {
		nodes[last].Nodes = insert(nodes[last].Nodes, prefix, n)
		return nodes
	}
	if !inside {
		return append(nodes, n)
	}
	if last < 0 || nodes[last].Path != prefix+first {
		nodes = append(nodes, Node{Path: prefix + first, Kind: eventlog.Process})
		last++
	}
	nodes[last].Nodes = insert(nodes[last].Nodes, prefix+first+"/", n)
	return nodes
}

func (s *scenario) ms(text string) int64 {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.fail("%v", err)
	}
	return d.Milliseconds()
}

func (s *scenario) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.fail("%v", err)
	}
	return n
}

// do plays one line.
func (s *scenario) do(f []string) {
	switch f[0] {
	case "partitions":
		s.judged()
		s.begin(s.number(f[1]))
		s.check(s.w.own())
		s.seen.events[eventlog.PartitionOwned]++
	case "limit":
		s.w.maxEvent, s.w.maxMsg = eventOverhead+s.number(f[1]), s.number(f[2])
	case "after":
		s.w.now += s.ms(f[1])
	case "poison":
		s.w.poison[f[1]] = eventlog.Type(strings.Join(f[2:], ""))
	case "batch":
		s.batch = []eventlog.Request{}
	case "end":
		batch := s.batch
		s.batch = nil
		s.decide(s.batchOn, batch)
	case "flow":
		s.flow()
	case "fire":
		for _, p := range s.w.parts {
			for _, d := range s.w.due(p) {
				s.say("%s%s is due", s.at(p), request(d.Request()))
				s.decide(p, []eventlog.Request{d.Request()})
			}
		}
	case "again": // the forwarders and relays say everything again
		for _, p := range s.w.parts {
			for to, l := range p.outbox {
				s.w.parts[to].inbox = append(s.w.parts[to].inbox, l...)
			}
		}
		s.flow()
	case "quiet":
		s.quiet = map[string]int{}
		s.do(f[1:])
		l := []string{}
		for _, x := range slices.Sorted(maps.Keys(s.quiet)) {
			l = append(l, fmt.Sprintf("%d %s", s.quiet[x], x))
		}
		s.quiet = nil
		s.say("%s", strings.Join(l, ", "))
	case "loop": // loop FROM TO request with # for the number
		for n := s.number(f[1]); n <= s.number(f[2]); n++ {
			g := slices.Clone(f[3:])
			for k := range g {
				g[k] = strings.ReplaceAll(g[k], "#", strconv.Itoa(n))
			}
			s.do(g)
		}
	case "state":
		s.state(f[1:])
	default:
		p, r := s.request(f)
		if s.batch != nil {
			s.batch, s.batchOn = append(s.batch, r), p
			return
		}
		s.decide(p, []eventlog.Request{r})
	}
}

func (s *scenario) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("%q: %v", s.line, err)
	}
}

func (s *scenario) flow() {
	for {
		var told string
		for _, p := range s.w.parts {
			if _, fan := p.s.FanOut(); fan {
				told = s.at(p) + "the next page of a fan-out"
				break
			}
			if len(p.inbox) > 0 {
				told = s.at(p) + "<- " + request(p.inbox[0])
				break
			}
		}
		if told == "" {
			told = "a second later: what is owed to others"
		}
		before := len(s.w.letters)
		p, d, more, err := s.w.step()
		s.check(err)
		if !more {
			return
		}
		s.say("%s", told)
		s.report(p, d, before)
	}
}

func (s *scenario) decide(p *part, batch []eventlog.Request) {
	before := len(s.w.letters)
	d, err := s.w.turn(p, false, batch...)
	s.check(err)
	s.report(p, d, before)
}

// at names a partition where there are several.
func (s *scenario) at(p *part) string {
	if len(s.w.parts) == 1 {
		return ""
	}
	return fmt.Sprintf("p%d ", p.s.Partition)
}

func (s *scenario) report(p *part, d *decided, lettersBefore int) {
	for _, a := range d.answers {
		s.seen.answers[a]++
		if s.quiet != nil {
			s.quiet["answered "+strconv.Quote(a)]++
		}
	}
	if len(d.answers) > 0 {
		s.say("%s", strings.Join(d.answers, ", "))
	}
	for k, e := range d.turn.Events {
		s.seen.events[e.Type]++
		if s.quiet != nil {
			s.quiet[string(e.Type)]++
		}
		s.say("  %s%d %s %s", s.at(p), e.N, e.Type, event(e))
		for _, m := range d.turn.Sendings {
			if m.Event != k {
				continue
			}
			if m.Path == "" {
				s.say("     to %s: %s", m.Record.Topic, letter(m.Record))
			} else {
				s.say("     to %s: %s %s", m.Record.Topic, m.Record.Key, clip(string(m.Record.Value)))
			}
		}
		for index := range e.Out {
			s.say("     to p%d: %s", e.Out[index].To, request(Told(e, index, p.s.Partition)))
		}
	}
	for _, id := range d.turn.Touched {
		if i := p.s.Instances[id]; i != nil {
			s.effects(i)
		}
	}
}
