package redis

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/godagger/dagger/projection"
)

// TestValuesAreCompressed: what an instance's row takes in the server's memory is less than half of
// the JSON that it is; what gets no smaller is stored as it is.
func TestValuesAreCompressed(t *testing.T) {
	server := miniredis.RunT(t)
	s, err := Open(t.Context(), Options{Addrs: []string{server.Addr()}, NoCheck: true}, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 500)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	rows := []projection.Row{
		{Kind: projection.KindInstance, Key: []byte("json"), Value: []byte(strings.Repeat(`{"path":"Pay/price","status":"COMPLETED","attempt":1},`, 10))},
		{Kind: projection.KindInstance, Key: []byte("noise"), Value: noise},
		{Kind: projection.KindInstance, Key: []byte("short"), Value: []byte("{}")},
	}
	if err := p.Apply(t.Context(), projection.Batch{New: projection.Watermark{N: 1, Epoch: 1, LogID: "log", Sum: 1}, Put: rows}); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		stored := server.HGet(s.names.base(0)+bucketNames[bucketOf(r.Key, s.buckets)], string(r.Key))
		most := len(r.Value) + 1
		if string(r.Key) == "json" {
			most = len(r.Value) / 2
		}
		if len(stored) == 0 || len(stored) > most {
			t.Errorf("%s of %d bytes is stored in %d, want %d at most", r.Key, len(r.Value), len(stored), most)
		}
		values, _, err := p.Get(t.Context(), projection.KindInstance, [][]byte{r.Key})
		if err != nil || !bytes.Equal(values[0], r.Value) {
			t.Errorf("%s comes back as %q, %v", r.Key, values, err)
		}
	}
}
