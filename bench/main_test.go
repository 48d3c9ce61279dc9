package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	listedPages = 20
	goleak.VerifyTestMain(m)
}

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

// Each of the other workloads, small: it ends, and what it is for was measured.
func TestWorkloads(t *testing.T) {
	positive := func(names ...string) func(map[string]any) bool {
		return func(m map[string]any) bool {
			for _, name := range names {
				var at any = m
				for part := range strings.SplitSeq(name, ".") {
					inner, _ := at.(map[string]any)
					at = inner[part]
				}
				if v, ok := at.(float64); !ok || v <= 0 {
					return false
				}
			}
			return true
		}
	}
	for _, x := range []struct {
		args []string
		ok   func(map[string]any) bool
	}{
		{[]string{"-workflow", "listen", "-instances", "100"}, positive("matched_per_second", "waiters_per_second", "cpu_s")},
		{[]string{"-workflow", "listen", "-instances", "100", "-local", "-rate", "1000"}, positive("matched_per_second", "rate")},
		{[]string{"-workflow", "listen", "-fan", "300"}, positive("matched_per_second", "fan")},
		{[]string{"-workflow", "timer", "-timers", "100", "-duration", "100ms"}, positive("fired_s", "completed_s", "timers")},
		{[]string{"-workflow", "parallel", "-instances", "10", "-tasks", "20"}, positive("cpu_ratio", "tasks")},
		{[]string{"-workflow", "takeover", "-instances", "100"}, positive("with_store_ms", "empty_store_ms", "events")},
		{[]string{"-workflow", "asof", "-instances", "100"}, positive("events")},
		{[]string{"-workflow", "fold", "-instances", "100"}, positive("events")},
		{[]string{"-against", "mem:", "-instances", "100"}, positive("ratio", "instances_per_second", "against_per_second", "cpu_us")},
		{[]string{"-workflow", "idle", "-duration", "50ms"}, positive("duration_s", "go_mb")},
		{[]string{"-waiting", "100", "-instances", "90"}, positive("before_per_second", "after_per_second", "waiting", "store_bytes_per_waiting",
			"list_page_busy_ms.p99", "list_page_ms.all.p99", "list_page_ms.status.p99", "list_page_ms.definition.p99", "list_page_ms.prefix.p99")},
		{[]string{"-waiting", "100", "-instances", "90", "-waiting-for", "time"}, positive("before_per_second", "after_per_second")},
	} {
		t.Run(strings.Join(x.args, " "), func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			args := append([]string{"-clients", "20", "-o", "json", "-partitions", "2"}, x.args...)
			if status := bench(t.Context(), args, &out, &errs); status != 0 {
				t.Fatalf("status %d: %s", status, errs.String())
			}
			var m map[string]any
			if err := json.Unmarshal(out.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			if !x.ok(m) {
				t.Errorf("%v", m)
			}
		})
	}
}

// A steady load says what it saw; what grows from the second to the last third is named.
func TestSteady(t *testing.T) {
	var r steadyResult
	var status int
	for d := 600 * time.Millisecond; len(r.Samples) < 3 && d < time.Minute; d *= 2 { // a busy machine misses some
		var out, errs bytes.Buffer
		status = bench(t.Context(), []string{"-duration", d.String(), "-sample", "100ms", "-rate", "200", "-partitions", "2", "-o", "json"}, &out, &errs)
		if status != 0 && status != 3 { // on a busy machine latency may grow
			t.Fatalf("status %d: %s", status, errs.String())
		}
		r = steadyResult{}
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.Samples) < 3 || len(r.Growth) == 0 || (len(r.Grew) > 0) != (status == 3) {
		t.Errorf("status %d: %+v", status, r)
	}
	r = steadyResult{}
	for k := range 9 {
		r.Samples = append(r.Samples, sample{Goroutines: 100 * (k + 1), memory: memory{RSS: 500, Heap: 100}})
	}
	if r.judge(); !slices.Equal(r.Grew, []string{"goroutines"}) {
		t.Errorf("grew: %v", r.Grew)
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
	for _, args := range [][]string{{"-tasks", "0"}, {"-o", "yaml"}, {"-rate", "-1"}, {"more"}, {"-unknown"},
		{"-workflow", "none"}, {"-fan", "5"}, {"-workflow", "listen", "-payload", "1"}, {"-waiting", "1", "-duration", "1s"}, {"-workflow", "parallel", "-duration", "1s"}, {"-sample", "0s"},
		{"-against", "mem:", "-log", "mem:"}} {
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
