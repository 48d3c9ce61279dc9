package pebble

import (
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
)

// TestStoredBytes: what is on disk is read by later versions.
func TestStoredBytes(t *testing.T) {
	w := projection.Watermark{N: 1 << 40, Epoch: 7, Offset: -2, Sum: math.MaxUint64 - 1, LogID: "log-é"}
	const golden = "01" + "0000010000000000" + "0000000000000007" + "fffffffffffffffe" + "fffffffffffffffe" + "6c6f672dc3a9"
	if got := hex.EncodeToString(appendWatermark(nil, w)); got != golden {
		t.Errorf("watermark is stored as\n%s, want\n%s", got, golden)
	}
	raw, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeWatermark(raw); err != nil || got != w {
		t.Errorf("watermark reads %+v, %v, want %+v", got, err, w)
	}

	dir := t.TempDir()
	s, err := Open(t.Context(), dir, projection.Identity{App: "pizza \"1\"", Partitions: 16}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), 3, 12345); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"STORE":     `{"format":1,"app":"pizza \"1\"","partitions":16}`,
		"p-3.epoch": "12345",
	} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s holds %q, %v, want %q", name, got, err, want)
		}
	}
}

func FuzzWatermark(f *testing.F) {
	f.Add(appendWatermark(nil, projection.Watermark{N: 1, LogID: "x"}))
	f.Add([]byte{watermarkFormat})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if w, err := decodeWatermark(raw); err == nil && string(appendWatermark(nil, w)) != string(raw) {
			t.Errorf("%x reads %+v, which is stored otherwise", raw, w)
		}
	})
}
