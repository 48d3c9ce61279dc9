package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

// compiled is a definition as the engine takes it: data, and functions without types.
type compiled struct {
	code      *engine.Code
	listeners []listener
	sends     []pathTopic
	triggers  []pathTopic
}

type listener struct {
	path  string
	topic string
	match match
}

type pathTopic struct{ path, topic string }

const maxTopic = 249 // Kafka's limit

// compile checks the definition and erases its types, once.
func (t *template) compile() (*compiled, error) {
	t.once.Do(func() { t.compiled, t.err = t.build() })
	return t.compiled, t.err
}

func (t *template) build() (*compiled, error) {
	c := &compiler{name: t.name, ttl: map[engine.TopicKey]time.Duration{}, first: map[engine.TopicKey]listener{}}
	c.out.code = &engine.Code{Handlers: map[string]engine.Handler{}, Messages: map[engine.TopicKey]engine.MessageKeys{}}
	if why := badName(t.name); why != "" {
		c.mistake("", "the definition's name %s", why)
	}
	if t.version < 1 {
		c.mistake("", "version %d is less than 1", t.version)
	}
	if len(t.nodes) == 0 {
		c.mistake("", "the definition has no node")
	}
	if t.retains {
		c.duration("", "Retain", t.retain, time.Millisecond)
	}
	for _, why := range checkParams(t.params) {
		c.mistake("", "parameters: %s", why)
	}
	c.buffers(t.nodes)
	nodes := c.children("", t.nodes)
	c.resolve(nodes)
	c.triggers(t.triggers)
	if err := errors.Join(c.mistakes...); err != nil {
		return nil, err
	}
	plan, err := machine.Build(machine.Plan{Name: t.name, Version: t.version, Root: nodes, Retain: t.retain.Milliseconds()})
	if err != nil {
		return nil, fmt.Errorf("register %s: %w", t.name, err)
	}
	c.out.code.Plan = plan
	if plan.Computes() {
		c.out.code.Keys, c.out.code.KeysUnder = keys(c.values), keysUnder(c.values)
	}
	return &c.out, nil
}

type compiler struct {
	name     string
	mistakes []error
	ttl      map[engine.TopicKey]time.Duration
	first    map[engine.TopicKey]listener
	values   []computed
	scope    string // plan's path of the items around the node, with "[]"
	jumps    []jump
	out      compiled
}

// computed is a task whose key, time or interval is a function of the parameters.
type computed struct {
	scope string // as engine.Keys has it
	path  string
	of    func(params json.RawMessage) (string, error)
}

func (c *compiler) mistake(path, format string, args ...any) {
	where := c.name
	if where == "" {
		where = `""`
	}
	if path != "" {
		where += ": " + path
	}
	c.mistakes = append(c.mistakes, fmt.Errorf("register %s: %s", where, fmt.Sprintf(format, args...)))
}

// buffers finds the longest time to live of the listeners of each key.
func (c *compiler) buffers(nodes []node) {
	for _, n := range nodes {
		c.buffers(n.nodes)
		if n.kind == eventlog.Listen {
			k := engine.TopicKey{Topic: n.topic, Key: n.match.key}
			c.ttl[k] = max(c.ttl[k], bufferOf(n))
		}
	}
}

func bufferOf(n node) time.Duration {
	if n.buffer == 0 {
		return defaultBuffer
	}
	return n.buffer
}

func (c *compiler) children(parent string, nodes []node) []machine.Node {
	var l []machine.Node
	seen := map[string]bool{}
	for i, n := range nodes {
		path := n.name
		if n.name == "" {
			path = fmt.Sprintf("(%s number %d)", n.kind, i+1)
		}
		if parent != "" {
			path = parent + "/" + path
		}
		switch why := badName(n.name); {
		case n.kind == "":
			c.mistake(path, "an empty Node: use Process, Execute and the like")
			continue
		case why != "":
			c.mistake(path, "its name %s", why)
		case seen[n.name]:
			c.mistake(path, "the name is used twice; siblings need different names")
		case len(path) > eventlog.MaxName:
			c.mistake(path, "the path has %d bytes; at most %d fit", len(path), eventlog.MaxName)
		}
		seen[n.name] = true
		for _, m := range n.mistakes {
			c.mistake(path, "%s", m)
		}
		l = append(l, c.node(path, n))
	}
	return l
}

func (c *compiler) node(path string, n node) machine.Node {
	m := machine.Node{Path: path, Kind: n.kind, From: n.origin, Any: n.any}
	c.options(path, n, &m)
	c.value(path, n)
	c.attached(path, n, &m)
	switch n.kind {
	case eventlog.Process, eventlog.Parallel, eventlog.Decide:
		if len(n.nodes) == 0 {
			c.mistake(path, "a %s needs at least one node", n.kind)
		}
		m.Nodes = c.children(path, n.nodes)
	case eventlog.ForEach, eventlog.Dynamic:
		c.repeated(path, n, &m)
	}
	if n.kind == eventlog.Process || n.kind == eventlog.Parallel {
		m.DeadlineAt = n.value != nil
		return m
	}
	c.out.code.Handlers[path] = n.handler
	if n.kind != eventlog.Command && n.kind != eventlog.Listen {
		return m
	}
	m.Topic = n.topic
	if why := badTopic(n.topic); why != "" {
		c.mistake(path, "its topic %s", why)
	}
	c.topic(n.topic)
	if n.kind == eventlog.Command {
		c.out.sends = append(c.out.sends, pathTopic{path, n.topic})
		return m
	}
	m.Key = n.match.key
	if why := badName(n.match.key); why != "" && n.match.of != nil {
		c.mistake(path, "the attribute of its key %s", why)
	}
	k := engine.TopicKey{Topic: n.topic, Key: n.match.key}
	m.TTL = c.ttl[k].Milliseconds()
	c.begins(path, n, k)
	l := listener{path, n.topic, n.match}
	if f, twice := c.first[k]; twice && f.match.message != n.match.message {
		c.mistake(path, "%s", differs(f, l))
	} else if !twice {
		c.first[k] = l
		c.out.code.Messages[k] = n.match.from
	}
	c.out.listeners = append(c.out.listeners, l)
	c.values = append(c.values, computed{c.scope, path, n.match.of})
	return m
}

func (c *compiler) value(path string, n node) {
	if n.value != nil {
		c.values = append(c.values, computed{c.scope, path, n.value})
	}
}

// attached are the node's monitors and its on-stop handler.
func (c *compiler) attached(path string, n node, m *machine.Node) {
	seen := map[string]bool{}
	for _, a := range n.attached {
		at := path + "@" + a.name
		switch why := badName(a.name); {
		case why != "":
			c.mistake(path, "the name of a monitor %s", why)
		case a.kind == eventlog.Monitor && a.name == "stop":
			c.mistake(path, "a monitor can't be named stop: that is the name of OnStop")
		case seen[a.name]:
			c.mistake(at, "the name is used twice")
		}
		seen[a.name] = true
		for _, why := range a.mistakes {
			c.mistake(at, "%s", why)
		}
		x := machine.Node{Path: at, Kind: a.kind}
		c.options(at, a, &x)
		c.value(at, a)
		c.out.code.Handlers[at] = a.handler
		m.Attached = append(m.Attached, x)
	}
}

// repeated puts what runs more than once into the process that the machine repeats.
func (c *compiler) repeated(path string, n node, m *machine.Node) {
	if len(n.nodes) == 0 {
		c.mistake(path, "a %s needs at least one node", n.kind)
	}
	item := machine.Node{Path: path + "[]", Kind: eventlog.Process}
	if n.kind == eventlog.ForEach {
		m.Collect = n.collect
		if m.Concurrency == 0 {
			m.Concurrency = defaultRuns
		}
		for _, why := range checkParams(n.item) {
			c.mistake(path, "items: %s", why)
		}
		defer func(outer string) { c.scope = outer }(c.scope)
		c.scope = item.Path
	}
	item.Nodes = c.children(item.Path, n.nodes)
	m.Nodes = []machine.Node{item}
}

// differs: one relay computes the key for all that listen by it. Protocol rule 17.
func differs(f, l listener) string {
	return fmt.Sprintf("%s of topic %s is computed from %v here and from %v at %s: give one of them another attribute",
		l.match.key, l.topic, l.match.message, f.match.message, f.path)
}

func (c *compiler) topic(name string) {
	for _, t := range c.out.code.Topics {
		if t == name {
			return
		}
	}
	c.out.code.Topics = append(c.out.code.Topics, name)
}

func (c *compiler) options(path string, n node, m *machine.Node) {
	if n.deadline != 0 || n.value != nil && (n.kind == eventlog.Process || n.kind == eventlog.Parallel) {
		m.DeadlineFails = n.past == FailNode
		if n.past != SkipRest && n.past != FailNode {
			c.mistake(path, "say what happens past the deadline: SkipRest or FailNode")
		}
	}
	for _, o := range n.options {
		switch o {
		case "Retry":
			m.Retry = &machine.Retry{Attempts: n.retry.attempts, Delay: n.retry.delay.Milliseconds()}
			if n.retry.attempts < 1 {
				c.mistake(path, "Retry with %d attempts; at least 1", n.retry.attempts)
			}
			c.duration(path, "the delay of Retry", n.retry.delay, time.Millisecond)
		case "Timeout":
			m.Timeout = n.timeout.Milliseconds()
			c.duration(path, "Timeout", n.timeout, time.Millisecond)
		case "WaitAll":
			m.WaitAll = true
			if n.any {
				c.mistake(path, "WaitAll is for Parallel(All)")
			}
		case "OnFailure":
			c.onFailure(path, n.onFailure, m)
		case "Deadline":
			m.Deadline = n.deadline.Milliseconds()
			c.duration(path, "Deadline", n.deadline, time.Millisecond)
			if n.value != nil {
				c.mistake(path, "Deadline and DeadlineAt are both given")
			}
		case "SkipTo":
			c.jumps = append(c.jumps, jump{path: path, target: n.skipTo, option: "SkipTo"})
		case "Reprocess":
			m.Reprocess = true
		case "MatchOne":
			m.One = true
		case "Concurrency":
			if m.Concurrency = n.concurrency; n.concurrency < 1 {
				c.mistake(path, "Concurrency is %d; at least 1", n.concurrency)
			}
		case "Buffer":
			c.duration(path, "Buffer", n.buffer, time.Minute)
		}
	}
}

func (c *compiler) onFailure(path string, f FailurePolicy, m *machine.Node) {
	if f.times != 0 && f.how != "goto" {
		c.mistake(path, "Times is of Goto alone")
	}
	switch f.how {
	case "continue":
		m.Continue = true
	case "goto":
		if m.Gotos = f.times; f.times < 1 {
			c.mistake(path, "Goto is allowed %d times; at least once", f.times)
		}
		c.jumps = append(c.jumps, jump{path: path, target: f.path, option: "Goto"})
	}
}

// defaultRuns is how many runs of a ForEach work at once unless Concurrency says otherwise.
const defaultRuns = 100

const longest = 100 * 365 * 24 * time.Hour

func (c *compiler) duration(path, what string, d, least time.Duration) {
	switch {
	case d < least:
		c.mistake(path, "%s is %v; at least %v", what, d, least)
	case d > longest:
		c.mistake(path, "%s is %v; at most a hundred years", what, d)
	}
}

func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > 255:
		return fmt.Sprintf("has %d bytes; at most 255 fit", len(name))
	case !utf8.ValidString(name):
		return fmt.Sprintf("%q is not valid UTF-8", name)
	case strings.Contains(name, "/"):
		return fmt.Sprintf("%q contains a slash, which separates the names of a path", name)
	case strings.ContainsAny(name, "[]@"):
		return fmt.Sprintf("%q contains [, ] or @, which paths use for something else", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Sprintf("%q contains a control character", name)
	case strings.TrimSpace(name) != name:
		return fmt.Sprintf("%q begins or ends with a space", name)
	}
	return ""
}

func badTopic(name string) string {
	switch {
	case name == "":
		return "is empty"
	case name == "." || name == "..":
		return fmt.Sprintf("is %q", name)
	case len(name) > maxTopic:
		return fmt.Sprintf("has %d bytes; at most %d fit", len(name), maxTopic)
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-') {
			return fmt.Sprintf("%q has %q; letters, digits, dot, underscore and hyphen are allowed", name, r)
		}
	}
	return ""
}
