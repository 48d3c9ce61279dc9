package engine

import (
	"fmt"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// TestMet: what was noted is never said to be new; what is new is seldom said to have been
// noted. Parts of keys don't run into each other.
func TestMet(t *testing.T) {
	m := &met{}
	const n = 200_000
	wrong := 0
	for k := range n {
		if m.instance(fmt.Sprint("order-", k)) {
			wrong++
		}
		if m.key(eventlog.KeyRef{Topic: "orders", Key: "id", Value: fmt.Sprint(k)}) {
			wrong++
		}
	}
	for k := range n {
		if !m.instance(fmt.Sprint("order-", k)) || !m.key(eventlog.KeyRef{Topic: "orders", Key: "id", Value: fmt.Sprint(k)}) {
			t.Fatalf("%d is new a second time", k)
		}
	}
	t.Logf("%d of %d, %d layers", wrong, 2*n, len(m.layers))
	if wrong > 2*n/100 {
		t.Errorf("%d of %d that were new had been noted", wrong, 2*n)
	}
	m = &met{}
	m.key(eventlog.KeyRef{Topic: "a", Key: "b", Value: "c"})
	for _, k := range []eventlog.KeyRef{{Topic: "ab", Value: "c"}, {Topic: "a", Key: "bc"}, {Key: "ab", Value: "c"}, {Value: "abc"}} {
		if m.key(k) {
			t.Errorf("%v was noted", k)
		}
	}
}
