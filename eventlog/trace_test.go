package eventlog

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	parent  = "00-" + traceID + "-" + spanID + "-01"
)

func TestNewTrace(t *testing.T) {
	long := strings.Repeat("a", 600)
	for _, c := range []struct {
		parent, state string
		want          *Trace
	}{
		{parent, "", &Trace{Parent: parent}},
		{parent, " rojo=00f067aa0ba902b7,congo=t61 ", &Trace{Parent: parent, State: "rojo=00f067aa0ba902b7,congo=t61"}},
		{parent, "x=" + long, &Trace{Parent: parent}},
		{parent, "x=\x00", &Trace{Parent: parent}},
		{parent, "x=grün", &Trace{Parent: parent}},
		{"cc-" + traceID + "-" + spanID + "-03-what will be", "", &Trace{Parent: parent}},
		{"cc-" + traceID + "-" + spanID + "-ce", "", &Trace{Parent: parent[:53] + "00"}},
		{"", "x=1", nil},
		{"00-" + traceID + "-" + spanID, "", nil},
		{parent + "-x", "", nil},
		{"cc" + parent[2:] + "x", "", nil},
		{"ff" + parent[2:], "", nil},
		{strings.ToUpper(parent), "", nil},
		{"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01", "", nil},
		{"00-" + traceID + "-0000000000000000-01", "", nil},
		{"00_" + traceID + "-" + spanID + "-01", "", nil},
		{"00-" + traceID + "-" + spanID + "-0x", "", nil},
		{long, "", nil},
	} {
		if diff := cmp.Diff(c.want, NewTrace(c.parent, c.state)); diff != "" {
			t.Errorf("%q, %q: -want +got\n%s", c.parent, c.state, diff)
		}
	}
}

func TestTraceInHeaders(t *testing.T) {
	h := func(pairs ...string) (l []Header) {
		for k := 0; k < len(pairs); k += 2 {
			l = append(l, Header{Key: pairs[k], Value: []byte(pairs[k+1])})
		}
		return l
	}
	for _, c := range []struct {
		headers []Header
		want    *Trace
	}{
		{nil, nil},
		{h("tracestate", "a=1"), nil},
		{h("x", "y", "traceparent", parent), &Trace{Parent: parent}},
		{h("tracestate", "a=1", "traceparent", parent, "tracestate", "b=2"), &Trace{Parent: parent, State: "a=1,b=2"}},
		{h("traceparent", parent, "traceparent", parent), nil},
		{h("traceparent", strings.Repeat("0", 1<<20)), nil},
		{h("traceparent", parent, "tracestate", strings.Repeat("0", 1<<20)), &Trace{Parent: parent}},
	} {
		if diff := cmp.Diff(c.want, TraceOf(c.headers)); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	own := &Trace{Parent: parent, State: "a=1"}
	if diff := cmp.Diff(own, TraceOf(own.AppendHeaders(h("x", "y")))); diff != "" {
		t.Errorf("there and back: %s", diff)
	}
	theirs := h("traceparent", "theirs")
	if got := own.AppendHeaders(theirs); len(got) != 1 {
		t.Errorf("headers that have a trace context got another: %v", got)
	}
	if got := (*Trace)(nil).AppendHeaders(theirs); len(got) != 1 {
		t.Errorf("none was added: %v", got)
	}
}

// TestRequestTraceIsChecked: what a client writes into a request and nobody can understand
// is no reason to refuse the request.
func TestRequestTraceIsChecked(t *testing.T) {
	for state, want := range map[string]*Trace{
		`{"traceparent":"` + parent + `","tracestate":"a=1"}`: {Parent: parent, State: "a=1"},
		`{"traceparent":"` + strings.Repeat("0", 5000) + `"}`: nil,
		`{}`:   nil,
		`null`: nil,
	} {
		var r Request
		if err := DecodeRequest([]byte(`{"v":1,"type":"Start","id":"a","definition":"D","trace":`+state+`}`), &r); err != nil {
			t.Errorf("%.60s: %v", state, err)
		}
		if diff := cmp.Diff(want, r.Trace); diff != "" {
			t.Errorf("%.60s: -want +got\n%s", state, diff)
		}
	}
}
