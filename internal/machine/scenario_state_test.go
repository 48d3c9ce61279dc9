package machine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// effects are what the owner does for an instance: run code, and wait for times.
func (s *scenario) effects(i *Instance) {
	for _, w := range i.Works() {
		if w.Path == "" {
			s.say("     %s computes its keys", i.ID)
		} else {
			s.say("     %s runs %s act=%d attempt=%d", i.ID, w.Path, w.Act, w.Attempt)
		}
	}
	for k, d := range i.Dues() {
		if k == 3 {
			s.say("     %s has %d more times due", i.ID, len(i.Dues())-k)
			break
		}
		s.say("     %s has due at %d: %s %s", i.ID, d.At, d.Type, d.Path)
	}
}

// state prints instances and keys: those named, or all.
func (s *scenario) state(only []string) {
	for _, p := range s.w.parts {
		for _, id := range slices.Sorted(maps.Keys(p.s.Instances)) {
			i := p.s.Instances[id]
			if i == nil || len(only) > 0 && !slices.Contains(only, id) {
				continue
			}
			s.say("%sinstance %s: %s seq=%d run=%d %s", s.at(p), id, i.StatusName(), i.Seq, i.Run, clip(string(i.Params)))
			for _, x := range []struct{ name, value string }{{"error", i.Error}, {"failed task", i.FailedPath}, {"reason", i.Reason}} {
				if x.value != "" {
					s.say("  %s: %s", x.name, x.value)
				}
			}
			for _, k := range i.Tasks {
				s.say("  %s %s %s %s", k.Path, k.Kind, k.state(), i.WaitsFor(s.w.plans[i.Plan], k.Path))
			}
			for _, x := range i.Subs {
				s.say("  subscribed to %s act=%d", keyName(x.KeyRef), x.Act)
			}
			if len(i.Buffer) > 3 {
				s.say("  %d messages in the buffer", len(i.Buffer))
			} else {
				for _, b := range i.Buffer {
					s.say("  in the buffer: %d %s until %d", b.Msg, keyName(b.KeyRef), b.Expires)
				}
			}
			if len(i.Applied) > 0 || len(i.Refused) > 0 || i.Floor > 0 {
				s.say("  %d calls applied, %d refused, floor %d", len(i.Applied), len(i.Refused), i.Floor)
			}
			if waits := i.StopWaits(); waits != "" {
				s.say("  %s", waits)
			}
			if len(i.Held) > 0 {
				s.say("  %d requests held", len(i.Held))
			}
		}
		if len(only) > 0 {
			continue
		}
		for _, key := range slices.SortedFunc(maps.Keys(p.s.Keys), compareKeys) {
			k := p.s.Keys[key]
			ids := []string{}
			for _, w := range k.Waiters {
				ids = append(ids, w.ID)
			}
			if len(ids) > 3 {
				ids = []string{strconv.Itoa(len(ids))}
			}
			if len(k.Waiters)+len(k.Kept) > 0 {
				s.say("%skey %s: waiting %v, kept %d", s.at(p), keyName(key), ids, len(k.Kept))
			}
		}
		for _, n := range slices.Sorted(maps.Keys(p.s.Matched)) {
			s.say("%smatched %d: %s", s.at(p), n, clip(mustMarshal(p.s.Matched[n])))
		}
	}
}

func keyName(k eventlog.KeyRef) string { return fmt.Sprintf("%s %s=%s", k.Topic, k.Key, k.Value) }

func letter(r eventlog.Record) string {
	var l []string
	for _, h := range r.Headers {
		if len(h.Value) > 0 {
			l = append(l, strings.TrimPrefix(h.Key, "dagger-")+"="+strconv.Quote(string(h.Value)))
		}
	}
	return strings.Join(l, " ") + " " + clip(string(r.Value))
}

func clip(text string) string {
	if len(text) > 200 {
		return fmt.Sprintf("%s… (%d bytes)", text[:60], len(text))
	}
	return text
}

// event shows an event's fields but those that every one has, and Prev, which the world checks.
func event(e *eventlog.Event) string {
	c := *e
	id := ""
	if e.ID != "" {
		id = e.ID
		if e.Seq > 0 {
			id += fmt.Sprintf("#%d", e.Seq)
		}
	}
	pos := ""
	if e.Pos != nil {
		p := *e.Pos
		if len(p.Refused) > 0 {
			p.Refused = slices.Clone(p.Refused)
			for k := range p.Refused {
				p.Refused[k].Prev = 0
			}
			pos += " refused=" + mustMarshal(p.Refused)
		}
		if len(p.Sources) > 0 {
			pos += " sources=" + mustMarshal(p.Sources)
		}
	}
	c.Out, c.Pos = nil, nil
	held := ""
	if c.Held != nil {
		held, c.Held = " held=("+request(*c.Held)+")", nil
	}
	return strings.TrimSpace(id + " " + fields(eventlog.AppendEvent(nil, &c), "v", "n", "type", "id", "seq", "prev", "at") + held + pos)
}

func request(r eventlog.Request) string {
	data, err := eventlog.AppendRequest(nil, &r)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s %s", r.Type, fields(data, "v", "type", "source", "mark", "at"))
}

// fields shows a JSON object as name=value.
func fields(object []byte, but ...string) string {
	d := json.NewDecoder(bytes.NewReader(object))
	d.Token()
	var l []string
	for d.More() {
		name, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			panic(err)
		}
		text := string(value)
		var plain string
		if json.Unmarshal(value, &plain) == nil && !strings.ContainsAny(plain, " \n") {
			text = plain
		}
		switch {
		case slices.Contains(but, name.(string)):
			continue
		case name == "message":
			var m eventlog.Message
			mustUnmarshal(text, &m)
			text = fmt.Sprintf("%s/%d@%d:%s", m.Topic, m.Partition, m.Offset, m.Value)
		case name == "id":
			l = append(l, text)
			continue
		case name == "reason" && strings.Contains(text, "goroutine"):
			text = strconv.Quote(strings.SplitN(text, `\n`, 2)[0])
		case text == "true":
			l = append(l, name.(string))
			continue
		}
		l = append(l, fmt.Sprintf("%s=%s", name, clip(text)))
	}
	return strings.Join(l, " ")
}
