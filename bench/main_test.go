package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A short load on the parts in memory and on the embedded pair: everything that is promised
// to be printed is there.
func TestBench(t *testing.T) {
	for _, args := range [][]string{
		{"-log", "mem:", "-store", "mem:"},
		{"-rate", "1000", "-payload", "100"},
	} {
		var out, errs bytes.Buffer
		args = append(args, "-instances", "200", "-clients", "20", "-tasks", "2", "-partitions", "2", "-o", "json")
		if status := bench(t.Context(), args, &out, &errs); status != 0 {
			t.Fatalf("%v: status %d: %s", args, status, errs.String())
		}
		var r result
		d := json.NewDecoder(&out)
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Instances != 200 || r.CPUs < 1 || r.ElapsedS <= 0 || r.InstancesPerSecond <= 0 || r.TransitionsPerSecond < 3.9*r.InstancesPerSecond ||
			r.LatencyMS.P50 <= 0 || r.LatencyMS.P50 > r.LatencyMS.P99 || r.LatencyMS.P99 > r.LatencyMS.Max || r.CPUS <= 0 || r.PeakRSSMB <= 0 ||
			r.EventsPerInstance < 4 || r.LogBytesPerInstance < 100 || r.Partitions != 2 {
			t.Errorf("%v: %+v", args, r)
		}
		if r.Fsync != (r.Log == "file") {
			t.Errorf("fsync of %s is %v", r.Log, r.Fsync)
		}
	}
}

func TestFields(t *testing.T) {
	var out bytes.Buffer
	if err := write(&out, &result{}, "json"); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"workflow", "log", "store", "cpus", "instances", "elapsed_s", "instances_per_second", "transitions_per_second", "latency_ms",
		"cpu_s", "peak_rss_mb", "log_bytes_per_instance", "events_per_instance", "fsync"} {
		if _, ok := m[name]; !ok {
			t.Errorf("no %s among %v", name, slices.Sorted(maps.Keys(m)))
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-tasks", "0"}, {"-o", "yaml"}, {"-rate", "-1"}, {"more"}, {"-unknown"}} {
		var out, errs bytes.Buffer
		if status := bench(t.Context(), args, &out, &errs); status != 2 || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%v: status %d, stdout %q, stderr %q", args, status, out.String(), errs.String())
		}
	}
	var out, errs bytes.Buffer
	if status := bench(t.Context(), []string{"-log", "nosuch:", "-store", "mem:"}, &out, &errs); status != 1 || errs.Len() == 0 {
		t.Errorf("unknown scheme: status %d, %q", status, errs.String())
	}
}
