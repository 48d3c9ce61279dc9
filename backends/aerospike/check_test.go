package aerospike

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
)

func TestDangerousSettings(t *testing.T) {
	good := map[string]string{"default-ttl": "0", "storage-engine.evict-used-pct": "0", "evict-indexes-memory-pct": "0", "max-record-size": "1048576"}
	for _, c := range []struct {
		version, name, value string
		err                  string
	}{
		{"7.2.0.17", "default-ttl", "0", ""},
		{"6.0.0.1", "high-water-memory-pct", "0", ""},
		{"10.1.0", "nsup-period", "120", ""},
		{"7.2.0.17", "default-ttl", "2592000", "default-ttl is 2592000"},
		{"7.2.0.17", "storage-engine.evict-used-pct", "60", "storage-engine.evict-used-pct is 60"},
		{"7.2.0.17", "evict-indexes-memory-pct", "50", "evict-indexes-memory-pct is 50"},
		{"6.4.0.1", "high-water-disk-pct", "50", "high-water-disk-pct is 50"},
		{"6.4.0.1", "high-water-memory-pct", "60", "high-water-memory-pct is 60"},
		{"6.4.0.1", "single-bin", "true", "single-bin is true"},
		{"7.2.0.17", "max-record-size", "65536", "max-record-size is 65536"},
		{"5.7.0.8", "default-ttl", "0", "6.0 is the least"},
		{"new", "default-ttl", "0", "6.0 is the least"},
		{"", "default-ttl", "0", "doesn't tell its version"},
	} {
		f := newFake()
		f.settle, f.version = maps.Clone(good), c.version
		f.settle[c.name] = c.value
		s, err := openFake(t, f, identity)
		if err == nil {
			s.Close()
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s %s=%s: %v, want %q", c.version, c.name, c.value, err, c.err)
		}
	}
	f := newFake() // dangerous, and wanted all the same
	f.settle["default-ttl"], f.settle["max-record-size"] = "60", "262144"
	o := options
	o.NoCheck = true
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	s, err := open(t.Context(), o, identity, f.connect())
	if err != nil || s.recordSize != 256<<10 {
		t.Errorf("check=off: %v", err)
	}
	s.Close()
	f.settle = nil
	if _, err := openFake(t, f, identity); err == nil || !strings.Contains(err.Error(), "no such namespace") {
		t.Errorf("no namespace: %v", err)
	}
}

func TestRecordSizeIsReadFromTheServer(t *testing.T) {
	for _, c := range []struct {
		settings map[string]string
		want     int
	}{
		{map[string]string{"max-record-size": "262144"}, 256 << 10},
		{map[string]string{"max-record-size": "0", "storage-engine.write-block-size": "131072"}, 128 << 10},
		{map[string]string{"default-ttl": "0"}, 1 << 20},
	} {
		f := newFake()
		f.settle, f.maxSize = c.settings, c.want
		s, err := openFake(t, f, identity)
		if err != nil {
			t.Fatal(err)
		}
		if s.recordSize != c.want {
			t.Errorf("%v: records of %d, want %d", c.settings, s.recordSize, c.want)
		}
		p, err := s.Acquire(t.Context(), 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		// Rows of many sizes, none of which must come near the limit.
		b := projection.Batch{New: projection.Watermark{N: 1, Epoch: 1}}
		for i, size := range []int{0, 1, 100, c.want/4 - 20, c.want / 2, c.want, 3*c.want + 1} {
			value := make([]byte, size)
			for j := range value {
				value[j] = byte(j * j * (i + 7) / 3)
			}
			for _, kind := range []projection.Kind{projection.KindInstance, projection.KindKept} {
				b.Put = append(b.Put, projection.Row{Kind: kind, Key: fmt.Append(nil, size), Value: value})
			}
		}
		for i := range 20 {
			b.Put = append(b.Put, projection.Row{Kind: projection.KindDue, Key: []byte(strings.Repeat("k", s.maxKey()-1) + string(rune('a'+i)))})
		}
		if err := p.Apply(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		rows := 0
		if err := p.Dump(t.Context(), func(r projection.Row) error {
			rows++
			for _, want := range b.Put {
				if want.Kind == r.Kind && string(want.Key) == string(r.Key) && string(want.Value) != string(r.Value) {
					return fmt.Errorf("row %#x %.20q differs", r.Kind, r.Key)
				}
			}
			return nil
		}); err != nil || rows != len(b.Put) {
			t.Errorf("%d rows of %d, %v", rows, len(b.Put), err)
		}
		large := projection.Batch{Expected: 1, New: projection.Watermark{N: 2, Epoch: 1}, Put: []projection.Row{{Kind: projection.KindDue, Key: make([]byte, s.maxKey()+1)}}}
		if err := p.Apply(t.Context(), large); !errors.Is(err, projection.ErrTooLarge) {
			t.Errorf("a key of %d bytes: %v", s.maxKey()+1, err)
		}
		s.Close()
	}
}

// TestFullNamespace: a batch is refused, reads go on, and so does work when there is space.
func TestFullNamespace(t *testing.T) {
	f := newFake()
	p := ownerOf(t, f, 1)
	for n := uint64(1); n <= 10; n++ {
		if err := p.Apply(t.Context(), batch(n, 1)); err != nil {
			t.Fatal(err)
		}
	}
	full := func(full bool) {
		f.mu.Lock()
		f.full = full
		f.mu.Unlock()
	}
	full(true)
	for range 3 {
		err := p.Apply(t.Context(), batch(11, 1))
		if err == nil || !strings.Contains(err.Error(), "stop-writes") || errors.Is(err, projection.ErrStateLost) {
			t.Fatalf("apply to a full namespace: %v", err)
		}
		if at := check(t, p); at != 10 {
			t.Fatalf("the partition stands at event %d", at)
		}
	}
	full(false)
	if err := p.Apply(t.Context(), batch(11, 1)); err != nil {
		t.Fatal(err)
	}
	check(t, p)
	// Full in the middle of a batch: it is applied, and made when there is space.
	made := 0
	f.doomed = func(*change) error {
		if made++; made > 5 {
			f.full = true
		}
		return nil
	}
	if err := p.Apply(t.Context(), batch(12, 1)); err == nil {
		t.Fatal("a full server took a batch")
	}
	f.doomed = nil
	if at := check(t, p); at != 11 && at != 12 {
		t.Fatalf("the partition stands at event %d", at)
	}
	full(false)
	if err := p.Apply(t.Context(), batch(12, 1)); err != nil {
		t.Fatal(err)
	}
	if at := check(t, p); at != 12 {
		t.Fatalf("the partition stands at event %d", at)
	}
}

// TestNoServer: opening waits for a server that may be starting, no longer than it is told, and
// what it says is short.
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	began := time.Now()
	_, err = projection.Open(t.Context(), "aerospike://me:s3cret@"+addr+"/test?timeout=500ms", identity)
	if err == nil || len(err.Error()) > 600 || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("no server: %v", err)
	}
	if took := time.Since(began); took < 400*time.Millisecond { // how much longer is the machine's affair
		t.Errorf("it waited %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := projection.Open(ctx, "aerospike://"+addr+"/test", identity); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no server, and a context that ends: %v", err)
	}
}

func TestErrorsAreCut(t *testing.T) {
	c := &cluster{secret: "s3cret"}
	err := c.said(errors.New("password s3cret\n  " + strings.Repeat("ResultCode: TIMEOUT, Iteration: 1\n", 1000)))
	if s := err.Error(); len(s) > 310 || strings.Contains(s, "s3cret") || strings.Contains(s, "\n") {
		t.Errorf("the error is %d bytes: %.400s", len(s), s)
	}
}
