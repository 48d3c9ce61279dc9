package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/godagger/dagger/eventlog"
)

func encode(v map[string]string) json.RawMessage { return json.RawMessage(mustMarshal(v)) }

// nodesOf are the nodes with functions of the parameters of a run of a ForEach, "" = the instance's.
func nodesOf(o *oracle, scope string) (l []*Node) {
	for _, n := range computed(o.plan) {
		if pattern(o.scope(n.Path)) == pattern(scope) {
			l = append(l, n)
		}
	}
	return l
}

// keys are the values that the functions give for parameters, as a worker computes them.
func (p *play) keys(o *oracle, scope string, params map[string]string) (l []eventlog.TaskKey) {
	for _, n := range nodesOf(o, scope) {
		l = append(l, eventlog.TaskKey{Path: scope + n.Path[len(pattern(scope)):], Value: params["v:"+n.Path]})
	}
	return l
}

// values are random fields of parameters that functions read.
func (p *play) values(o *oracle, scope string, percent int) map[string]string {
	v := map[string]string{}
	for _, n := range nodesOf(o, scope) {
		if p.chance(percent) {
			v["v:"+n.Path] = p.value(n)
		}
	}
	return v
}

func (p *play) value(n *Node) string {
	in := func(ms int64) string { return fmt.Sprint(p.w.now + ms) }
	switch n.Kind {
	case eventlog.Listen:
		return pick(p.r, []string{"x", "x", "y", "y", ""})
	case eventlog.Every:
		v := pick(p.r, []string{"1000", "3000", "700", "0"})
		if p.chance(50) {
			v += "/" + pick(p.r, []string{"1", in(500), in(4000), in(9000)})
		}
		return v
	}
	v := pick(p.r, []string{in(-5000), in(0), in(1000), in(5000), ""})
	if n.Kind == eventlog.Monitor && v != "" && p.chance(40) {
		v += "/" + pick(p.r, []string{"1000", "300"})
	}
	return v
}

// working are the activities whose handlers run, by path.
func working(o *oracle) map[string]*activity {
	l := map[string]*activity{}
	if o.whole.ended() {
		return l
	}
	for _, m := range []map[string]*activity{o.acts, o.over, o.monitors, o.stops} {
		for path, a := range m {
			if a.status == Executing && a.phase == Running {
				l[path] = a
			}
		}
	}
	return l
}

// proof is a request about what an activity does now.
func (p *play) proof(o *oracle, typ eventlog.RequestType, path string, a *activity) eventlog.Request {
	return eventlog.Request{Type: typ, ID: o.id, Run: p.state.Instances[o.id].Run, Path: path, Act: a.act, Attempt: a.number, Jitter: 0.5}
}

// result is the end of a handler, or a retry of an instance that failed.
func (p *play) result(o *oracle) error {
	if o.whole == Failure {
		p.requests++
		return p.decides(o, eventlog.Request{Type: eventlog.RetryInstance, ID: o.id, Request: fmt.Sprint("r", p.requests), Made: p.w.now}, o.again)
	}
	works := working(o)
	if len(works) == 0 {
		return nil
	}
	path := pick(p.r, slices.Sorted(maps.Keys(works)))
	a := works[path]
	r := p.proof(o, eventlog.Result, path, a)
	r.Base = a.base
	p.past = append(p.past, r)
	if p.r.IntN(100) < p.failures {
		r.Error, r.Terminal = "broken", p.chance(20)
		if p.chance(20) {
			r.RetryAfter = 1 + int64(p.r.IntN(3000))
		}
		return p.decides(o, r, func() { o.fails(path, a, r.Terminal, r.RetryAfter) })
	}
	r.OK = true
	if p.r.IntN(200) == 0 {
		r.Stop = "enough"
		return p.decides(o, r, o.stop)
	}
	out := outcome{}
	more := false
	switch n := a.n; n.Kind {
	case eventlog.Command:
		m := fmt.Sprint(o.id, " ", path, " ", p.w.now)
		r.Record, p.wanted = &eventlog.Record{Topic: "out", Partition: -1, Value: []byte(m)}, append(p.wanted, m)
	case eventlog.Listen, eventlog.Every, eventlog.Monitor:
		more = p.chance(40)
	case eventlog.Decide:
		if p.chance(80) {
			out.choice = n.Nodes[p.r.IntN(len(n.Nodes))].name()
		}
	case eventlog.Dynamic:
		for range p.r.IntN(4) {
			out.choices = append(out.choices, pick(p.r, n.Nodes[0].Nodes).own)
		}
	}
	r.Choice, r.Choices, r.More = out.choice, out.choices, more
	if (a.n.Kind == eventlog.Decide || a.n.Kind == eventlog.Dynamic) && p.chance(3) {
		r.Choice, r.Choices = "unknown", []string{"unknown"} // fails at once
		return p.decides(o, r, func() { o.fails(path, a, true, 0) })
	}
	scope := o.scope(path)
	patch := map[string]*string{}
	if p.chance(60) {
		v := fmt.Sprint(p.w.now, " ", len(p.trace))
		patch[path] = &v
	}
	if p.chance(50) {
		for _, n := range nodesOf(o, scope) {
			if p.chance(30) {
				if v := p.value(n); v != "" {
					patch["v:"+n.Path] = &v
				} else {
					patch["v:"+n.Path] = nil
				}
			}
		}
	}
	if len(patch) > 0 || p.chance(20) {
		r.Params = json.RawMessage(mustMarshal(patch))
	}
	apply := func(params map[string]string) map[string]string {
		c := maps.Clone(params)
		for k, v := range patch {
			if delete(c, k); v != nil {
				c[k] = *v
			}
		}
		return c
	}
	items := map[string]map[string]string{}
	if a.n.Kind == eventlog.ForEach && !a.collect {
		out.items = p.r.IntN(5)
		for k := range out.items {
			run := fmt.Sprintf("%s[%d]", path, k)
			items[run] = p.values(o, run, 85)
			items[run]["item"] = fmt.Sprint(k)
			r.Items = append(r.Items, encode(items[run]))
		}
	}
	if p.chance(80) {
		r.HasKeys, r.Keys = true, p.keys(o, scope, apply(a.seen))
		for _, run := range slices.Sorted(maps.Keys(items)) {
			r.Keys = append(r.Keys, p.keys(o, run, items[run])...)
		}
	}
	return p.decides(o, r, func() {
		fresh := r.HasKeys && o.change[scope] == a.change && !o.stale
		if len(patch) > 0 {
			o.params[scope] = apply(o.params[scope])
			o.change[scope]++
		}
		if out.items > 0 {
			o.forget(path + "[]")
			for run := range items {
				o.params[run] = items[run]
				o.change[run]++
			}
		}
		switch {
		case fresh:
			o.computed(scope, o.params[scope])
			for run := range items {
				o.computed(run, o.params[run])
			}
		case len(patch)+len(items) > 0:
			o.stale = o.plan.Computes() && !o.stopping
		}
		o.succeeds(path, a, more, out)
	})
}

// evaluate is a worker that computes the values again.
func (p *play) evaluate(o *oracle) error {
	i := p.state.Instances[o.id]
	if i.Evaluate == 0 || !o.stale {
		return nil
	}
	r := eventlog.Request{Type: eventlog.Evaluated, ID: o.id, Run: i.Run, Act: i.Evaluate, Base: i.LastParams()}
	if p.chance(5) {
		r.Error = "no value"
		return p.decides(o, r, func() { o.broken = true })
	}
	for _, scope := range slices.Sorted(maps.Keys(o.params)) {
		r.Keys = append(r.Keys, p.keys(o, scope, o.params[scope])...)
	}
	return p.decides(o, r, func() {
		o.stale = false
		for scope, params := range o.params {
			o.computed(scope, params)
		}
	})
}

// message is one of the topic that instances listen to; the relay may say it again.
func (p *play) message() error {
	p.offset++
	m := &message{key: eventlog.KeyRef{Topic: "in", Key: pick(p.r, keyed), Value: pick(p.r, []string{"x", "y", "z"})}, offset: int64(p.offset)}
	if subs := slices.SortedFunc(maps.Keys(pick(p.r, p.o.instances).subs), compareKeys); len(subs) > 0 && p.chance(80) {
		m.key = pick(p.r, subs)
	}
	m.expires = p.w.now + 60_000
	r := eventlog.Request{Type: eventlog.Deliver, Topic: "in", Key: m.key.Key, Value: m.key.Value,
		Message: &eventlog.Message{Topic: "in", TopicID: "in-id", Offset: m.offset, Value: json.RawMessage(fmt.Sprint(m.offset))},
		Source:  &eventlog.Source{TopicID: "in-id", Key: m.key.Key}, Mark: &eventlog.Mark{Pos: m.offset}}
	if p.chance(20) {
		r.TTL = 90_000
		m.expires = p.w.now + 90_000
	}
	p.o.arrive(m, p.o.waiters[m.key])
	if err := p.decided(r); err != nil || !p.chance(20) {
		return err
	}
	return p.refused(r, Ignored)
}

// time goes on, or something that is due happens.
func (p *play) time(o *oracle) error {
	if p.chance(30) {
		p.w.now += int64(pick(p.r, []int{1, 300, 1000, 2500, 6000}))
		if p.chance(3) {
			p.w.now += 100_000
		}
		p.o.now = p.w.now
		return nil
	}
	i := p.state.Instances[o.id]
	dues := o.dues()
	var l []func() error
	for _, path := range slices.Sorted(maps.Keys(dues)) {
		at := dues[path]
		a := o.activity(path)
		if o.times[path] != nil {
			a = o.times[path]
		}
		r := p.proof(o, Timer, path, a)
		r.Expires = at
		p.past = append(p.past, r)
		if at <= p.w.now {
			l = append(l, func() error { return p.decides(o, r, func() { o.due(path) }) })
		}
	}
	for _, c := range o.inbox {
		if c.expires <= p.w.now {
			at := slices.IndexFunc(i.Buffer, func(b Buffered) bool { return b.Message.Offset == c.offset })
			r := eventlog.Request{Type: ExpireBuffer, ID: o.id, Act: i.Buffer[at].Seq, Expires: c.expires}
			l = append(l, func() error { return p.decides(o, r, func() { o.expire(c) }) })
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(p.o.kept), compareKeys) {
		for _, m := range p.o.kept[key] {
			if m.expires <= p.w.now {
				k := p.state.Keys[key].Kept
				at := slices.IndexFunc(k, func(b Kept) bool { return b.Message.Offset == m.offset })
				r := k[at].Due(key).Request()
				l = append(l, func() error {
					p.o.letter(m)
					p.o.kept[key] = slices.DeleteFunc(p.o.kept[key], func(x *message) bool { return x == m })
					return p.decided(r)
				})
			}
		}
	}
	if len(l) == 0 {
		return nil
	}
	return pick(p.r, l)()
}

// late says again what is not wanted any more, or something that is about nothing.
func (p *play) late(o *oracle) error {
	if p.chance(20) {
		return p.refused(pick(p.r, p.calls), OK) // as before: it counts once
	}
	if len(p.past) == 0 {
		return nil
	}
	r := pick(p.r, p.past)
	switch p.r.IntN(5) {
	case 0:
		r.Act++
	case 1:
		r.Attempt++
	case 2:
		r.Run++
	case 3:
		r.ID = "nobody"
	}
	if o := p.byID[r.ID]; o != nil && r.Run == p.state.Instances[r.ID].Run {
		for path, at := range o.dues() {
			a := o.activity(path)
			if o.times[path] != nil {
				a = o.times[path]
			}
			if r.Type == Timer && r.Path == path && r.Act == a.act && r.Attempt == a.number && r.Expires == at {
				return nil // it is about what is
			}
		}
		if a := working(o)[r.Path]; a != nil && r.Type == eventlog.Result && r.Act == a.act && r.Attempt == a.number {
			return nil
		}
	}
	if r.Type == eventlog.Result {
		r.OK = p.chance(50)
		return p.refused(r, Superseded)
	}
	return p.refused(r, Ignored)
}

// cutShort is a handler that runs for long, or that a dead worker left running.
func (p *play) cutShort(o *oracle) error {
	works := working(o)
	if len(works) == 0 {
		return nil
	}
	path := pick(p.r, slices.Sorted(maps.Keys(works)))
	a := works[path]
	if p.chance(50) {
		r := p.proof(o, HasRun, path, a)
		if a.ran {
			return p.refused(r, Ignored)
		}
		return p.decides(o, r, func() { a.ran = true })
	}
	return p.decides(o, p.proof(o, Interrupted, path, a), func() { o.interrupted(path, a) })
}

func (p *play) stop(o *oracle) error {
	p.requests++
	r := eventlog.Request{Type: eventlog.StopInstance, ID: o.id, Request: fmt.Sprint("r", p.requests), Made: p.w.now}
	if o.whole.ended() {
		answer, err := p.decide(r)
		if err == nil && answer != Terminal {
			err = fmt.Errorf("an instance that has ended is stopped: %s", answer)
		}
		return err
	}
	return p.decides(o, r, o.stop)
}
