package aerospike

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
)

// fake is a server in this process that does what a real Community server was seen to do: one
// record is one step and two are not; a condition is not looked at where there is no record;
// in file mode a restart brings removed records back, sometimes as they were long before; and
// it fails, loses replies, and makes changes long after their caller has given up.
type fake struct {
	mu      sync.Mutex
	records map[string]*fakeRecord
	// history has every version of every record since the server's file was made.
	history  map[string][]*fakeRecord
	maxSize  int
	full     bool   // stop-writes
	name     string // of the cluster
	late     []change
	starts   int
	settle   map[string]string // its settings
	version  string
	calls    int
	faults   *faults
	doomed   func(c *change) error // a test's own fault, before a change is made
	observed func(c *change)       // after a change was made
}

type fakeRecord struct {
	bins       map[string]any
	entries    map[string][]byte
	generation uint16
}

// faults are in thousandths.
type faults struct {
	rnd      *rand.Rand
	drop     int // the request is lost
	reply    int // the reply is lost
	delay    int // the request is made later, or never
	busy     int // 14 or 18
	read     int // a read fails
	unstable int // the cluster has no name just now
	max      int // of changes that wait to be made late
}

func (f *faults) hits(chance int) bool { return f != nil && f.rnd.IntN(1000) < chance }

func newFake() *fake {
	f := &fake{records: map[string]*fakeRecord{}, history: map[string][]*fakeRecord{}, maxSize: 1 << 20, version: "7.2.0.17"}
	f.settle = map[string]string{"default-ttl": "0", "storage-engine.evict-used-pct": "0", "max-record-size": fmt.Sprint(f.maxSize)}
	f.restarted()
	return f
}

func (f *fake) restarted() {
	f.starts++
	f.name = fmt.Sprintf("%X", rand.Uint64())
}

var errFake = errors.New("fake: no reply")

// connection is one to the fake. A store has its own, so that one can be cut.
type connection struct {
	*fake
	cut chan struct{}
}

func (f *fake) connect() *connection { return &connection{f, make(chan struct{})} }

func (o *connection) gone() bool {
	select {
	case <-o.cut:
		return true
	default:
		return false
	}
}

func (o *connection) close() error { return nil }

func (o *connection) cluster(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone() || o.faults.hits(o.unstableChance()) {
		return "", fmt.Errorf("%w: unstable", errPasses)
	}
	return o.name, nil
}

func (f *fake) unstableChance() int {
	if f.faults == nil {
		return 0
	}
	return f.faults.unstable
}

func (o *connection) settings(context.Context) ([]settings, error) {
	return []settings{{node: "fake", version: o.version, values: o.settle}}, nil
}

func (o *connection) read(ctx context.Context, reads []read) ([]*record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]*record, len(reads))
	for i, r := range reads {
		o.mu.Lock() // each record is a step of its own
		o.makeLate()
		if o.gone() || o.faults != nil && i == 0 && o.faults.hits(o.faults.read) {
			o.mu.Unlock()
			return nil, fmt.Errorf("%w: %w", errPasses, errFake)
		}
		out[i] = o.records[r.key].read(&r)
		o.mu.Unlock()
	}
	return out, nil
}

func (x *fakeRecord) read(r *read) *record {
	if x == nil {
		return nil
	}
	out := &record{bins: map[string]any{}}
	for _, name := range r.bins {
		if v, has := x.bins[name]; has {
			if b, ok := v.([]byte); ok {
				v = slices.Clone(b)
			}
			out.bins[name] = v
		}
	}
	for _, key := range r.keys {
		if v, has := x.entries[key]; has {
			out.entries = append(out.entries, entry{key, slices.Clone(v)})
		}
	}
	if r.span != nil {
		for key, v := range x.entries {
			if r.span.has(key) {
				out.entries = append(out.entries, entry{key, slices.Clone(v)})
			}
		}
	}
	slices.SortFunc(out.entries, byKey)
	return out
}

func (o *connection) change(ctx context.Context, changes []change) ([]result, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, c := range changes {
		if named[c.key] {
			panic("fake: " + c.key + " is named twice in a call")
		}
		named[c.key] = true
	}
	results := make([]result, len(changes))
	var why error
	for _, i := range o.order(len(changes)) {
		c := copyOf(&changes[i])
		o.mu.Lock()
		o.makeLate()
		results[i], why = o.reply(c, why)
		o.mu.Unlock()
	}
	return results, why
}

// order is the order in which a call's changes are made: any.
func (f *fake) order(n int) []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.faults != nil {
		return f.faults.rnd.Perm(n)
	}
	return rand.Perm(n)
}

// reply makes a change, or not, and says so, or not.
func (o *connection) reply(c *change, why error) (result, error) {
	lost := result{code: codeNoResponse}
	if o.gone() {
		return lost, errFake
	}
	if o.doomed != nil {
		if err := o.doomed(c); err != nil {
			return lost, err
		}
	}
	x := o.faults
	switch {
	case x == nil:
	case x.hits(x.busy):
		return result{code: []code{codeBusy, codeOverload}[x.rnd.IntN(2)]}, why
	case x.hits(x.drop):
		return lost, errFake
	case x.hits(x.delay) && len(o.late) < x.max:
		o.late = append(o.late, *c)
		return result{code: codeTimeout}, errFake
	case x.hits(x.reply):
		o.make(c)
		return lost, errFake
	}
	return o.make(c), why
}

// makeLate makes, now and then, changes that their callers have given up.
func (f *fake) makeLate() {
	for len(f.late) > 0 && f.faults.hits(100) {
		i := f.faults.rnd.IntN(len(f.late))
		c := f.late[i]
		f.late = slices.Delete(f.late, i, i+1)
		f.make(&c)
	}
}

// make makes a change, in one step.
func (f *fake) make(c *change) (r result) {
	if f.observed != nil {
		defer func() { f.observed(c) }()
	}
	x := f.records[c.key]
	if c.mode == remove {
		if x == nil {
			return result{code: codeNotFound}
		}
		delete(f.records, c.key)
		return result{}
	}
	switch {
	case f.full:
		return result{code: codeFull}
	case c.mode == create && x != nil:
		return result{code: codeExists}
	case c.mode == update && x == nil:
		return result{code: codeNotFound}
	}
	if x != nil { // a condition is not looked at where there is no record
		n, has := x.bins[binN].(int64)
		token, hasToken := x.bins[binToken].(int64)
		if c.older != 0 && !(has && n < c.older) || c.token != 0 && !(hasToken && token == c.token) {
			return result{code: codeFiltered}
		}
	}
	next := &fakeRecord{bins: map[string]any{}, entries: map[string][]byte{}, generation: 1}
	if x != nil {
		next = &fakeRecord{bins: maps.Clone(x.bins), entries: maps.Clone(x.entries), generation: x.generation + 1}
		if next.generation == 0 {
			next.generation = 1
		}
	}
	if c.wantBlob {
		r.blob, _ = next.bins[binBlob].([]byte)
	}
	for _, b := range c.put {
		next.bins[b.name] = b.value
	}
	take := func(key string) {
		if v, has := next.entries[key]; has && c.wantOld {
			r.old = append(r.old, entry{key, v})
		}
	}
	for _, key := range c.del {
		take(key)
		delete(next.entries, key)
	}
	if c.cut != nil {
		maps.DeleteFunc(next.entries, func(key string, _ []byte) bool { return key >= *c.cut })
	}
	for _, e := range c.add {
		take(e.key)
		next.entries[e.key] = e.value
	}
	r.size = len(next.entries)
	if next.size() > f.maxSize {
		return result{code: codeTooBig}
	}
	f.records[c.key] = next
	f.history[c.key] = append(f.history[c.key], next)
	return r
}

func (x *fakeRecord) size() int {
	n := 60
	for name, v := range x.bins {
		n += len(name) + 9
		switch v := v.(type) {
		case []byte:
			n += len(v)
		case string:
			n += len(v)
		}
	}
	for key, v := range x.entries {
		n += len(key) + len(v) + 7
	}
	return n
}

// copyOf is a change that shares nothing with its caller.
func copyOf(c *change) *change {
	d := *c
	d.put = slices.Clone(c.put)
	for i, b := range d.put {
		if raw, ok := b.value.([]byte); ok {
			d.put[i].value = slices.Clone(raw)
		}
	}
	d.del = slices.Clone(c.del)
	d.add = slices.Clone(c.add)
	for i := range d.add {
		d.add[i].value = slices.Clone(d.add[i].value)
	}
	return &d
}

func (o *connection) sweep(_ context.Context, partition int32, below, except int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone() {
		return errFake
	}
	for key, x := range o.records {
		inc, has := x.bins[binIncarnation].(int64)
		if p, of := x.bins[binPartition].(int64); of && has && p == int64(partition) && inc < below && inc != except {
			delete(o.records, key)
		}
	}
	return nil
}

// restart stops and starts a server with file storage: removed records are back, in some version
// that they once had, and lose says how many of the last changes each record may have lost.
func (f *fake) restart(rnd *rand.Rand, lose int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range f.keys(f.history) {
		versions := f.history[key]
		if f.records[key] == nil {
			f.records[key] = versions[rnd.IntN(len(versions))]
			continue
		}
		if lose > 0 && rnd.IntN(2) == 0 {
			n := max(0, len(versions)-1-rnd.IntN(lose+1))
			f.records[key] = versions[n]
			f.history[key] = versions[:n+1]
		}
	}
	f.restarted()
}

// forget restarts a server without a file.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.records)
	clear(f.history)
	f.restarted()
}

func (f *fake) keys(m map[string][]*fakeRecord) []string {
	return slices.Sorted(maps.Keys(m))
}

// with are the keys of records that begin with something, in order.
func (f *fake) with(prefix string) (keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.records {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}
