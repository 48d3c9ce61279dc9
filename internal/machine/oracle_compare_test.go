package machine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// compare says where the machine differs from what the oracle expects.
func (p *play) compare() error {
	for _, o := range p.o.instances {
		i := p.state.Instances[o.id]
		for _, err := range []error{o.compareStatus(i), o.compareParams(i), p.compareWork(o, i), o.compareMessages(i)} {
			if err != nil {
				return fmt.Errorf("instance %s: %w", o.id, err)
			}
		}
	}
	if diff := cmp.Diff(p.wanted, p.sent); diff != "" {
		return fmt.Errorf("messages (-oracle +machine):\n%s", diff)
	}
	p.expired()
	slices.Sort(p.o.letters)
	slices.Sort(p.letters)
	if diff := cmp.Diff(p.o.letters, p.letters); diff != "" {
		return fmt.Errorf("dead letters (-oracle +machine):\n%s", diff)
	}
	var want, have []string
	for _, kept := range p.o.kept {
		for _, m := range kept {
			want = append(want, fmt.Sprint(m.key, m.offset, " until ", m.expires-epoch))
		}
	}
	for key, k := range p.state.Keys {
		for _, m := range k.Kept {
			have = append(have, fmt.Sprint(key, m.Message.Offset, " until ", m.Expires-epoch))
		}
	}
	slices.Sort(want)
	slices.Sort(have)
	if diff := cmp.Diff(want, have); diff != "" {
		return fmt.Errorf("kept messages (-oracle +machine):\n%s", diff)
	}
	return nil
}

// expired lets the oracle drop a message past its time that the machine has: it goes when its
// timer fires, or when an instance begins to wait for it, be it only in passing.
func (p *play) expired() {
	for key, kept := range p.o.kept {
		has := func(m *message) bool {
			k := p.state.Keys[key]
			return k != nil && slices.ContainsFunc(k.Kept, func(x Kept) bool { return x.Message.Offset == m.offset })
		}
		p.o.kept[key] = slices.DeleteFunc(kept, func(m *message) bool {
			gone := m.expires <= p.o.now && !has(m)
			if gone {
				p.o.letter(m)
			}
			return gone
		})
	}
}

// compareWork compares what is at work, and notes how the machine names it.
func (p *play) compareWork(o *oracle, i *Instance) error {
	want, have := map[string]string{}, map[string]string{}
	line := func(status Status, phase Phase, attempt int, due int64, offset int64) string {
		if due > 0 {
			due -= epoch
		}
		return fmt.Sprintf("%s %s attempt %d due %d message %d", status, phase, attempt, due, offset)
	}
	live := map[string]*activity{}
	if !o.whole.ended() {
		for _, m := range []map[string]*activity{o.acts, o.over, o.monitors, o.stops} {
			for path, a := range m {
				if a.status != Executing {
					continue
				}
				live[path] = a
				offset := int64(0)
				if a.msg != nil {
					offset = a.msg.offset
				}
				want[path] = line(Executing, a.phase, a.attempt, o.dueOf(path, a), offset)
			}
		}
		for path, a := range o.times {
			live[path] = a
			want[path] = line(Executing, Inside, 0, o.deadlineOf(path), 0)
		}
	}
	for _, t := range i.Tasks {
		if t.Status != Executing || t.Phase == Inside && o.times[t.Path] == nil {
			continue
		}
		offset := int64(0)
		if t.Message != nil {
			offset = t.Message.Offset
		}
		have[t.Path] = line(t.Status, t.Phase, t.Attempt, t.Due, offset)
	}
	if diff := cmp.Diff(want, have); diff != "" {
		return fmt.Errorf("what is at work (-oracle +machine):\n%s", diff)
	}
	for _, m := range []map[string]*activity{o.monitors, o.stops} {
		for path, a := range m {
			t := i.Task(path)
			if at := o.status[path[:strings.LastIndexByte(path, '@')]]; t != nil && (at == Failure || at == Stopped || at == "") && slices.Contains([]Status{Skipped, Stopped}, t.Status) && a.status != Executing {
				continue // it died with its node, or with the instance
			}
			if t == nil || t.Status != a.status {
				return fmt.Errorf("%s is %v; the oracle says %s", path, t, a.status)
			}
		}
	}
	if o.stale != (i.Evaluate != 0) {
		return fmt.Errorf("values are to be computed: %v; the oracle says %v", i.Evaluate != 0, o.stale)
	}
	for path, a := range live {
		t := i.Task(path)
		if a.act == t.Act && a.number == t.Attempt {
			continue
		}
		a.act, a.number = t.Act, t.Attempt
		if a.phase != Running {
			continue
		}
		for _, r := range p.past {
			if r.Type == eventlog.Result && r.ID == o.id && r.Path == path && r.Act == t.Act && r.Attempt == t.Attempt {
				return fmt.Errorf("%s: attempt %d of %d was there before", path, t.Attempt, t.Act)
			}
		}
		scope := o.scope(path)
		_, a.base = i.ParamsAt(path)
		a.seen, a.change = maps.Clone(o.params[scope]), o.change[scope]
	}
	return nil
}

// compareMessages compares what the instance waits for, and what it keeps.
func (o *oracle) compareMessages(i *Instance) error {
	var want, have []string
	for k := range o.subs {
		want = append(want, fmt.Sprint("waits for ", k))
	}
	for _, c := range o.inbox {
		want = append(want, fmt.Sprint("keeps ", c.key, c.offset, " until ", c.expires-epoch, c.sole))
	}
	for _, s := range i.Subs {
		have = append(have, fmt.Sprint("waits for ", s.KeyRef))
	}
	for _, b := range i.Buffer {
		have = append(have, fmt.Sprint("keeps ", b.KeyRef, b.Message.Offset, " until ", b.Expires-epoch, b.Sole))
	}
	slices.Sort(want)
	slices.Sort(have)
	if diff := cmp.Diff(want, have); diff != "" {
		return fmt.Errorf("messages of the instance (-oracle +machine):\n%s", diff)
	}
	return nil
}

// compareParams compares the parameters of the instance, and of the runs that it knows.
func (o *oracle) compareParams(i *Instance) error {
	have := map[string]json.RawMessage{"": i.Params}
	for _, x := range i.Items {
		for k, v := range x.Values {
			have[fmt.Sprintf("%s[%d]", x.Path, k)] = v
		}
	}
	for of, data := range have {
		var v map[string]string
		if err := json.Unmarshal(data, &v); err != nil {
			return err
		}
		if diff := cmp.Diff(o.params[of], v); diff != "" {
			return fmt.Errorf("parameters of %q (-oracle +machine):\n%s", of, diff)
		}
	}
	if !o.whole.ended() && len(have) != len(o.params) {
		return fmt.Errorf("it has the parameters of %v, the oracle of %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(o.params)))
	}
	return nil
}

// compareStatus compares the status of the instance, of its tasks, and of the nodes around them.
func (o *oracle) compareStatus(i *Instance) error {
	if i.Status != o.whole || i.Stopping != o.stopping || o.whole == Executing && i.FlowEnded != o.flowEnded {
		return fmt.Errorf("it is %s (stopping %v, flow ended %v); the oracle says %s %v %v", i.Status, i.Stopping, i.FlowEnded, o.whole, o.stopping, o.flowEnded)
	}
	o.status, o.nodes = map[string]Status{}, map[string]*Node{}
	o.assign(o.root(), o.cut())
	status := maps.Clone(o.status)
	delete(status, "")
	for path, a := range o.over {
		if !a.again {
			status[path] = a.status
		}
	}
	var wrong []string
	for _, path := range slices.Sorted(maps.Keys(status)) {
		n, want, have := o.plan.Node(path), status[path], Status("")
		run := n.item && n.parent.Kind == eventlog.ForEach
		switch k := i.Task(path); {
		case k != nil:
			have = k.Status
		case run:
			if x := i.ItemsOf(path[:strings.LastIndexByte(path, '[')]); x != nil {
				have = itemStatus(x.States[indexOf(path)])
			}
		}
		if !o.same(n, run, want, have) {
			wrong = append(wrong, fmt.Sprintf("%s is %q; the oracle says %s", path, have, want))
		}
	}
	for _, k := range i.Tasks {
		if k.Kind == eventlog.Monitor || k.Kind == eventlog.OnStop {
			continue
		}
		if _, is := status[k.Path]; !is && k.Status != Skipped && (k.Status == Executing || !o.later(k.Path)) {
			wrong = append(wrong, fmt.Sprintf("%s is %q; the oracle does not know it", k.Path, k.Status))
		}
	}
	if o.whole == Failure && !o.failedWith(i.FailedPath) {
		wrong = append(wrong, fmt.Sprintf("it is said to have failed with %q", i.FailedPath))
	}
	if wrong != nil {
		return fmt.Errorf("%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// failedWith says that the instance failed with a node: it failed, and nothing around it may.
func (o *oracle) failedWith(path string) bool {
	if path == "" {
		return o.broken
	}
	if a := o.over[path]; a != nil && a.status == Failure {
		return !a.n.Continue
	}
	failed := false
	for _, p := range []string{path, path + "#", path + "!"} {
		r, has := o.results[p]
		failed = failed || has && !r.ok
	}
	for at := path; at != ""; at = at[:max(0, strings.LastIndexAny(at, "/["))] {
		if n, s := o.plan.Node(at), o.status[at]; n != nil && (s != Failure && s != "" || n.Continue) {
			return false
		}
	}
	return failed
}

// later says that a node is in a run of a ForEach that goes on later: a retry keeps to the limit.
func (o *oracle) later(path string) bool {
	for at := range len(path) {
		if path[at] == ']' && o.status[path[:at+1]] == NotStarted && !o.working[path[:at+1]] {
			return true
		}
	}
	return false
}

// same says that a node has the status that it should have. Not every process has one, and what
// was not reached may be skipped.
func (o *oracle) same(n *Node, run bool, want, have Status) bool {
	whole := o.whole == Failure
	switch {
	case have == want:
		return true
	case want == NotStarted:
		return have == "" || have == Skipped || run && have == Stopped
	case run: // it executes as long as the instance may be retried
		return want == Stopped && have == Executing || want == Failure && have == Executing && whole || want == Failure && have == Stopped
	case n.Kind == eventlog.Process: // it has a status in a Parallel, and when it failed and may
		return have == "" && !(want == Failure && n.Continue) && (n.parent.Kind != eventlog.Parallel || want != Completed && want != Failure) ||
			want == Failure && whole && have == "" || have == Stopped
	}
	return n.isComposite() && want == Failure && have == Stopped // it failed with the instance
}
