package machine

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

func (h *history) start() {
	r := eventlog.Request{Type: eventlog.StartInstance, ID: pick(h.r, ids), Definition: pick(h.r, h.names), Made: h.now}
	h.nextID++
	r.Request = fmt.Sprint("r", h.nextID)
	r.Params = json.RawMessage(fmt.Sprintf(`{"a":%d,"b":"x"}`, h.r.IntN(9)))
	plan := h.current[r.Definition]
	switch h.r.IntN(20) {
	case 0:
		r.Params = json.RawMessage(`[1]`)
	case 1:
		r.Definition = "unknown"
	case 2:
		r.Params = json.RawMessage(`{"big":"` + strings.Repeat("x", 200) + `"}`)
	case 3:
		r.Params = nil
	case 4:
		r.Made = h.now + 100_000
	case 5:
		r.Definition, r.Plan = "", plan.Hash()
	}
	if h.chance(60) {
		r.HasKeys, r.Keys = true, h.keys(plan, &Instance{}, nil)
	}
	h.toOwner(r)
}

// call asks for something by its name.
func (h *history) call() {
	h.nextID++
	r := eventlog.Request{Type: pick(h.r, []eventlog.RequestType{eventlog.StopInstance, eventlog.RetryInstance, eventlog.RetryInstance, eventlog.ReleaseInstance, eventlog.ReleaseInstance, eventlog.DeleteInstance}),
		ID: pick(h.r, ids), Request: fmt.Sprint("r", h.nextID), Made: h.now, Reason: "test"}
	if i := h.instance(r.ID); r.Type == eventlog.ReleaseInstance && i != nil && i.Run > 0 && h.chance(30) {
		body := i.Clone().Body
		switch h.r.IntN(6) {
		case 0:
			body.Plan = "unknown"
		case 1:
			body.Params = json.RawMessage(`[]`)
		case 2:
			body.Definition = ""
		case 3:
			body.Params = json.RawMessage(`{"mended":true}`)
		}
		r.State = json.RawMessage(mustMarshal(body))
	}
	if r.Type == eventlog.StopInstance && h.chance(40) { // of a record, which may overtake the start
		r.Definition, r.Made = pick(h.r, h.names), 0
		r.Message = &eventlog.Message{Topic: "stops", TopicID: "s", Offset: int64(h.nextID), Value: json.RawMessage(`"x"`)}
	}
	h.toOwner(r)
}

// again says something again, word by word.
func (h *history) again() {
	if len(h.past) > 0 {
		r := pick(h.r, h.past)
		h.queue(h.of(&r), r)
	}
}

// nonsense says something that is not so.
func (h *history) nonsense() {
	if len(h.past) == 0 {
		return
	}
	r := pick(h.r, h.past)
	if r.Request != "" {
		h.nextID++
		r.Request = fmt.Sprint("r", h.nextID)
	}
	switch h.r.IntN(6) {
	case 0:
		r.Act += uint64(h.r.IntN(3)) - 1
	case 1:
		r.Attempt++
	case 2:
		r.Run++
	case 3:
		r.Path = pick(h.r, []string{"", "none", "t0", "P/t1"})
	case 4:
		r.ID = pick(h.r, ids)
	case 5:
		r.Type = pick(h.r, []eventlog.RequestType{Timer, HasRun, Interrupted, ExpireBuffer, ExpireKept, ExpireStop, Forget, FanOut, eventlog.Result, eventlog.Evaluated, eventlog.DeliverTo, "Unheard"})
		r.Msg, r.Expires, r.Request = uint64(h.r.IntN(50)), h.now, ""
		if r.Type == eventlog.DeliverTo {
			r.Topic, r.Key, r.Value = "in", pick(h.r, keyed), "nobody waits for this"
			r.Source, r.Mark, r.Message = nil, nil, &eventlog.Message{Topic: "in"}
			return // a delivery always has a source or is local; the next line keeps it so
		}
	}
	h.queue(h.of(&r), r)
}
