package aerospike

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	as "github.com/aerospike/aerospike-client-go/v7"

	"github.com/godagger/dagger/projection"
)

// setting sets something of the namespace until the test ends, and says whether the server has it.
func (s *realServer) setting(t *testing.T, name, value, usual string) bool {
	t.Helper()
	c := s.client(t)
	set := func(value string) bool {
		command := "set-config:context=namespace;id=" + s.namespace + ";" + name + "=" + value
		answer, err := c.GetNodes()[0].RequestInfo(as.NewInfoPolicy(), command)
		return err == nil && answer[command] == "ok"
	}
	ok := set(value)
	t.Cleanup(func() {
		if ok && !set(usual) {
			t.Errorf("%s stays %s", name, value)
		}
	})
	return ok
}

// TestRealServerSettings sets on the server, for a moment, what Open must refuse.
func TestRealServerSettings(t *testing.T) {
	server := needServer(t).withSet(t)
	server.setting(t, "allow-ttl-without-nsup", "true", "false") // or it takes no default-ttl
	refused := 0
	for name, value := range map[string]string{
		"default-ttl": "86400", "evict-used-pct": "99", "evict-indexes-memory-pct": "99", "high-water-disk-pct": "99", "high-water-memory-pct": "99",
	} {
		t.Run(name, func(t *testing.T) {
			if !server.setting(t, name, value, "0") {
				t.Skipf("this version of the server has no setting %s", name)
			}
			refused++
			x, err := Open(t.Context(), server.options(server.addr), identity)
			if err == nil {
				err = x.Close()
			}
			if err == nil || !strings.Contains(err.Error(), name+" is "+value) {
				t.Errorf("with %s=%s: %v", name, value, err)
			}
		})
	}
	if refused < 2 {
		t.Errorf("the server took %d of the settings", refused)
	}
	x, err := Open(t.Context(), server.options(server.addr), identity)
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
}

// TestRealServerNothingExpires looks at every record that a store writes in a namespace where
// records expire that don't say otherwise.
func TestRealServerNothingExpires(t *testing.T) {
	server := needServer(t).withSet(t)
	server.setting(t, "allow-ttl-without-nsup", "true", "false")
	if !server.setting(t, "default-ttl", "86400", "0") {
		t.Fatal("the server takes no default-ttl")
	}
	o := server.options(server.addr)
	o.NoCheck = true
	s, err := Open(t.Context(), o, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(p projection.Partition, epoch uint64) {
		t.Helper()
		b := projection.Batch{New: projection.Watermark{N: 1, Epoch: epoch, LogID: "log"}, Add: []projection.Delta{{Key: []byte("n"), N: 1}}}
		for n := range 2_000 { // several pages
			key := fmt.Appendf(nil, "%08d", n)
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: key, Value: []byte{}}, projection.Row{Kind: projection.KindInstance, Key: key, Value: key})
		}
		b.Put = append(b.Put, projection.Row{Kind: projection.KindPlan, Key: []byte("long"), Value: make([]byte, 3<<20)})
		if err := p.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		next := projection.Batch{Expected: 1, New: b.New, Del: []projection.Row{b.Put[1]}, Put: []projection.Row{b.Put[3]}}
		next.New.N = 2
		if err := p.Apply(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	fill(p, 1)
	g, err := s.Stage(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	fill(g, 0)
	if err := g.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), 1, 1); err != nil {
		t.Fatal(err)
	}
	p, err = s.Acquire(t.Context(), 0, 2)
	if err != nil {
		t.Fatal(err)
	}
	fill(p, 2)

	found, err2 := server.client(t).ScanAll(nil, server.namespace, server.set)
	if err2 != nil {
		t.Fatal(err2)
	}
	records := 0
	for r := range found.Results() {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if records++; r.Record.Expiration != as.TTLDontExpire {
			t.Errorf("record %v with the bins %v expires in %d s", r.Record.Key, slices.Sorted(maps.Keys(r.Record.Bins)), r.Record.Expiration)
		}
	}
	if records < 2_000 {
		t.Errorf("only %d records were found", records)
	}
}

// TestRealServerOpenIsCutOff: opening ends when its context does, and leaves no connection: goleak
// would see what keeps it.
func TestRealServerOpenIsCutOff(t *testing.T) {
	server := needServer(t).withSet(t)
	opened := 0
	for n := range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*500*time.Microsecond)
		s, err := Open(ctx, server.options(server.addr), identity)
		cancel()
		switch {
		case err == nil:
			opened++
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		case !errors.Is(err, context.DeadlineExceeded):
			t.Error(err)
		}
	}
	t.Logf("%d of 60 were in time", opened)
}
