package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// memory is what the process has at a time, in MB.
type memory struct {
	RSS  float64 `json:"rss_mb"`       // of the operating system; 0 where it is not known
	Heap float64 `json:"live_heap_mb"` // what the last garbage collection left
	Go   float64 `json:"go_mb"`        // all that Go has of the operating system; the rest of RSS is Pebble's
}

// memoryNow is measured as it is; settled gives back first what is free.
func memoryNow() memory {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	return memory{RSS: rss(), Heap: float64(m[0].Value.Uint64()) / 1e6, Go: float64(m[1].Value.Uint64()-m[2].Value.Uint64()) / 1e6}
}

func settled() memory {
	runtime.GC()
	debug.FreeOSMemory()
	return memoryNow()
}

// rss is the resident memory of this process, where Linux says it.
func rss() float64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(string(fields[1]), 64)
	return pages * float64(os.Getpagesize()) / 1e6
}

// dirBytes is what the files of a log or store take, if its URL names a directory.
func dirBytes(url string) (n int64) {
	_, dir, _ := strings.Cut(url, ":")
	dir, _, _ = strings.Cut(dir, "?")
	if s := scheme(url); s != "file" && s != "pebble" {
		return 0
	}
	_ = filepath.WalkDir(strings.TrimPrefix(dir, "//"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil { // files come and go
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
