package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestEmbedded compares the systems that need no server, shortly.
func TestEmbedded(t *testing.T) {
	bin := t.TempDir() + "/compare"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-systems", "dagger,dbos-sqlite", "-clients", "8", "-rounds", "1",
		"-warmup", "500ms", "-duration", "1s", "-o", "json", "-dir", t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for _, name := range []string{"dagger", "dbos-sqlite"} {
		var s summary
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if s.Name != name || s.InstancesPerSecond <= 0 || s.P50MS <= 0 || s.P99MS < s.P50MS || s.CPUS <= 0 || s.Ratio <= 0 || s.CPURatio <= 0 {
			t.Errorf("implausible: %+v", s)
		}
	}
}

// TestSummarize says what the ratio is: to the best of the others in the same round.
func TestSummarize(t *testing.T) {
	all := summarize([]string{"dagger", "dbos", "river"}, map[string][]measurement{
		"dagger": {{InstancesPerSecond: 900, Instances: 900, CPUS: 1}, {InstancesPerSecond: 800, Instances: 800, CPUS: 1}},
		"dbos":   {{InstancesPerSecond: 90, Instances: 90, CPUS: 1}, {InstancesPerSecond: 40, Instances: 40, CPUS: 2}},
		"river":  {{InstancesPerSecond: 45, Instances: 45, CPUS: 2}, {InstancesPerSecond: 100, Instances: 100, CPUS: 1}},
	})
	for k, want := range []struct{ speed, ratio, cpuRatio float64 }{{850, 9, 9}, {65, 0.7, 0.6}, {72.5, 0.75, 0.625}} {
		s := all[k]
		if math.Abs(s.InstancesPerSecond-want.speed) > 1e-9 || math.Abs(s.Ratio-want.ratio) > 1e-9 || math.Abs(s.CPURatio-want.cpuRatio) > 1e-9 {
			t.Errorf("%s: %v instances/s, ratio %v, of CPU %v; want %+v", s.Name, s.InstancesPerSecond, s.Ratio, s.CPURatio, want)
		}
	}
}

// TestMistakes shows that what can't be measured is refused before anything starts.
func TestMistakes(t *testing.T) {
	t.Setenv("COMPARE_POSTGRES", "")
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"-clients 0 -o yaml", 2, "-o is text or json"},
		{"-systems nobody", 1, `no system is called "nobody"`},
		{"-systems dbos", 1, "dbos needs COMPARE_POSTGRES"},
		{"-one river", 1, "needs COMPARE_POSTGRES"},
	} {
		var stdout, stderr bytes.Buffer
		if status := compare(t.Context(), strings.Fields(c.args), &stdout, &stderr); status != c.status || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("compare %s: status %d, %q", c.args, status, stderr.String())
		}
	}
}
