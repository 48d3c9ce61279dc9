package eventlog

import "strings"

// Trace is a trace context as W3C has it (https://www.w3.org/TR/trace-context/): it says to
// which trace an instance belongs.
type Trace struct {
	Parent string `json:"traceparent"`
	State  string `json:"tracestate,omitempty"`
}

// Names of the headers that carry a trace context.
const (
	TraceParent = "traceparent"
	TraceState  = "tracestate"
)

// maxTraceState is the most bytes of a tracestate that are kept: what W3C wants carried.
const maxTraceState = 512

// NewTrace is the trace context of two headers, or nil: one that can't be understood is none,
// and a tracestate that can't is left out. A traceparent of a later version than 00 comes out
// as what it has of that.
func NewTrace(parent, state string) *Trace {
	const size = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	if len(parent) < size || len(parent) > size && (parent[:2] == "00" || parent[size] != '-') {
		return nil
	}
	version, trace, span, flags := parent[:2], parent[3:35], parent[36:52], parent[53:size]
	if parent[2] != '-' || parent[35] != '-' || parent[52] != '-' ||
		!lowHex(version) || version == "ff" || !lowHex(flags) ||
		!lowHex(trace) || strings.Trim(trace, "0") == "" || !lowHex(span) || strings.Trim(span, "0") == "" {
		return nil
	}
	t := &Trace{Parent: parent[:size]}
	if version != "00" {
		sampled := "00"
		if strings.IndexByte("13579bdf", flags[1]) >= 0 {
			sampled = "01"
		}
		t.Parent = "00-" + trace + "-" + span + "-" + sampled
	}
	if state = strings.Trim(state, " \t"); len(state) <= maxTraceState && strings.IndexFunc(state, func(r rune) bool { return r < ' ' || r > '~' }) < 0 {
		t.State = state
	}
	return t
}

func lowHex(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) < 0
}

// TraceOf is the trace context that a record's headers carry, or nil. Two traceparents are
// none, several tracestates one list.
func TraceOf(headers []Header) *Trace {
	parent, parents := "", 0
	var states []string
	for k := range headers {
		switch headers[k].Key {
		case TraceParent:
			parents++
			if len(headers[k].Value) <= maxTraceState {
				parent = string(headers[k].Value)
			}
		case TraceState:
			if len(headers[k].Value) <= maxTraceState {
				states = append(states, string(headers[k].Value))
			}
		}
	}
	if parents != 1 {
		return nil
	}
	return NewTrace(parent, strings.Join(states, ","))
}

// AppendHeaders adds the headers that carry the trace context, where those that are there
// have none of their own. t may be nil.
func (t *Trace) AppendHeaders(headers []Header) []Header {
	if t == nil {
		return headers
	}
	for k := range headers {
		if headers[k].Key == TraceParent || headers[k].Key == TraceState {
			return headers
		}
	}
	headers = append(headers, Header{Key: TraceParent, Value: []byte(t.Parent)})
	if t.State != "" {
		headers = append(headers, Header{Key: TraceState, Value: []byte(t.State)})
	}
	return headers
}
