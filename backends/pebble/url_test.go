package pebble

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func isForeign(err error) bool { return errors.Is(err, projection.ErrForeign) }

func TestURLs(t *testing.T) {
	for _, c := range []struct {
		url, dir string
		options  Options
		err      string // part of it; "" = none
	}{
		{url: "pebble:///var/lib/x", dir: "/var/lib/x"},
		{url: "pebble:/var/lib/x", dir: "/var/lib/x"},
		{url: "pebble:dagger-data/store", dir: "dagger-data/store"},
		{url: "pebble:./x%20y", dir: "./x y"},
		{url: "pebble:x?wal=off", dir: "x", options: Options{NoWAL: true}},
		{url: "pebble:x?wal=on&cache=1GiB&memtables=1048576", dir: "x", options: Options{Cache: 1 << 30, Memtables: 1 << 20}},
		{url: "pebble:///x?cache=2048KiB", dir: "/x", options: Options{Cache: 2 << 20}},
		{url: "pebble:", err: "names no directory"},
		{url: "pebble://", err: "names no directory"},
		{url: "pebble://host/x", err: "without host"},
		{url: "pebble://user:secret@host/x", err: "without host"},
		{url: "pebble:x#part", err: "without host"},
		{url: "pebble:x?sync=on", err: "unknown parameter"},
		{url: "pebble:x?wal=maybe", err: "wal is on or off"},
		{url: "pebble:x?wal=on&wal=off", err: "given 2 times"},
		{url: "pebble:x?cache=1KiB", err: "not a size"},
		{url: "pebble:x?cache=99999999999GiB", err: "not a size"},
		{url: "pebble:x?cache=-1GiB", err: "not a size"},
		{url: "pebble:x?cache=", err: "not a size"},
		{url: "pebble:x?%zz", err: "can't be parsed"},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		dir, options, err := parseURL(u)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", c.url, err, c.err)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the error shows the password: %v", c.url, err)
			}
			continue
		}
		if err != nil || dir != c.dir || options != c.options {
			t.Errorf("%s: %q, %+v, %v, want %q, %+v", c.url, dir, options, err, c.dir, c.options)
		}
	}
}

func TestOpenByURL(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := projection.Open(t.Context(), "pebble:./data/store?wal=off", storetest.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join("data", "store", "STORE")); err != nil {
		t.Error(err)
	}
	_, err = projection.Open(t.Context(), "pebble:data/store", storetest.Identity)
	if !errors.Is(err, projection.ErrInUse) || !strings.Contains(err.Error(), "in use by pid ") {
		t.Errorf("second open: %v, want ErrInUse with the pid", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = projection.Open(t.Context(), "pebble://me:secret@host/x", storetest.Identity)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("error %v, want one without the password", err)
	}
}
