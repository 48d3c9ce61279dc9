package machine

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// request reads "Type id [path] name=value…". What a result or timer has to prove is filled
// in from the live state where the line does not say it.
func (s *scenario) request(f []string) (*part, eventlog.Request) {
	r := eventlog.Request{V: 1, Type: eventlog.RequestType(f[0])}
	var to *part
	given := map[string]bool{}
	if r.Type == eventlog.Deliver {
		r.Topic = f[1]
	} else if len(f) > 1 {
		r.ID = f[1]
	}
	object := map[string]json.RawMessage{}
	set := func(name string, v any) { object[name] = json.RawMessage(mustMarshal(v)) }
	body := "null"
	for k, x := range f[min(2, len(f)):] {
		name, value, has := strings.Cut(x, "=")
		given[name] = true
		switch {
		case strings.HasPrefix(x, "@"):
			to = s.w.parts[s.number(x[1:])]
		case !has && k == 0 && slices.Contains([]eventlog.RequestType{eventlog.Result, Interrupted, HasRun, Timer}, r.Type):
			r.Path = x
		case !has:
			set(name, true)
		case name == "keys":
			r.HasKeys = true
			for _, p := range strings.Split(value, ",") {
				if path, v, ok := strings.Cut(p, ":"); ok {
					r.Keys = append(r.Keys, eventlog.TaskKey{Path: path, Value: v})
				}
			}
		case name == "made":
			set(name, s.w.now+s.ms(value))
		case name == "offset":
			s.offset = int64(s.number(value))
		case name == "ttl" || name == "retryAfter":
			set(name, s.ms(value))
		case name == "body":
			body = value
		case name == "big":
			r.Params = json.RawMessage(`{"big":"` + strings.Repeat("x", s.number(value)) + `"}`)
		case name == "record": // topic:key:value
			p := strings.SplitN(value, ":", 3)
			r.Record = &eventlog.Record{Topic: p[0], Partition: -1, Key: []byte(p[1]), Value: []byte(p[2])}
		case slices.Contains([]string{"definition", "plan", "request", "reason", "error", "key", "value", "choice", "stop"}, name):
			set(name, value)
		default:
			for _, p := range s.w.current {
				value = strings.ReplaceAll(value, "PLAN:"+p.Name, p.Hash())
			}
			object[name] = json.RawMessage(value)
		}
	}
	mustUnmarshal(mustMarshal(object), &r)
	if r.Plan != "" && s.w.current[r.Plan] != nil {
		r.Plan = s.w.current[r.Plan].Hash()
	}
	if r.Request != "" && !given["made"] {
		r.Made = s.w.now
	}
	if r.Type == eventlog.Deliver {
		r.Source, r.Mark = &eventlog.Source{TopicID: r.Topic + "-id", Key: r.Key}, &eventlog.Mark{Pos: s.offset}
		r.Message = &eventlog.Message{Topic: r.Topic, TopicID: r.Topic + "-id", Offset: s.offset, Value: json.RawMessage(body)}
		if !given["offset"] {
			r.Source, r.Mark = nil, nil
		}
	}
	s.fill(&r, given)
	if to == nil {
		to = s.w.of(&r)
	}
	return to, r
}

func (s *scenario) fill(r *eventlog.Request, given map[string]bool) {
	i := s.w.instance(r.ID)
	if i == nil {
		return
	}
	switch r.Type {
	case eventlog.Evaluated:
		if !given["act"] {
			r.Act = i.Evaluate
		}
	case eventlog.Result, Interrupted, HasRun, Timer:
		k := i.Task(r.Path)
		if k == nil {
			break
		}
		if !given["act"] {
			r.Act = k.Act
		}
		if !given["attempt"] {
			r.Attempt = k.Attempt
		}
		if !given["expires"] && r.Type == Timer {
			r.Expires = k.Due
		}
	default:
		return
	}
	if !given["run"] {
		r.Run = i.Run
	}
	if !given["base"] && (r.Type == eventlog.Result || r.Type == eventlog.Evaluated) {
		if r.Base = i.LastParams(); r.Type == eventlog.Result {
			_, r.Base = i.ParamsAt(r.Path)
		}
	}
}
