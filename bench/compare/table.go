package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// systems in the order in which a round measures them.
var systems = []system{
	{"dagger", "", openEmbedded},
	{"dagger-kafka", "KAFKA_BROKERS", openKafka},
	{"dbos", "COMPARE_POSTGRES", openDBOS},
	{"dbos-sqlite", "", openDBOSOnSQLite},
	{"river", "COMPARE_POSTGRES", openRiver},
	{"river-tx", "COMPARE_POSTGRES", openRiverTx},
	{"asynq", "COMPARE_REDIS", openAsynq},
}

// ours are the systems that are compared with the best of the others.
var ours = []string{"dagger", "dagger-kafka"}

// summary is one system over all rounds: medians.
type summary struct {
	Name string `json:"name"`
	measurement
	CPUMSPerInstance float64   `json:"cpu_ms_per_instance"`
	Ratio            float64   `json:"ratio"`     // of instances per second to the best of the others in the same round; 0 = there is none
	CPURatio         float64   `json:"cpu_ratio"` // likewise, of instances per second of CPU time
	Rounds           []float64 `json:"rounds"`    // instances per second of each
	Ratios           []float64 `json:"ratios"`    // of each round
	CPUs             int       `json:"cpus"`
}

func summarize(names []string, measured map[string][]measurement) []summary {
	var all []summary
	for _, name := range names {
		rounds := measured[name]
		s := summary{Name: name, measurement: rounds[0], CPUs: runtime.NumCPU()}
		// Each number has its own median: no round is the typical one in all of them.
		of := func(number func(m measurement) float64) float64 {
			var numbers []float64
			for _, m := range rounds {
				numbers = append(numbers, number(m))
			}
			return median(numbers)
		}
		s.Instances = int(of(func(m measurement) float64 { return float64(m.Instances) }))
		s.ElapsedS = of(func(m measurement) float64 { return m.ElapsedS })
		s.InstancesPerSecond = of(func(m measurement) float64 { return m.InstancesPerSecond })
		s.P50MS = of(func(m measurement) float64 { return m.P50MS })
		s.P99MS = of(func(m measurement) float64 { return m.P99MS })
		s.CPUS = of(func(m measurement) float64 { return m.CPUS })
		s.CPUMSPerInstance = of(func(m measurement) float64 { return m.CPUS / float64(m.Instances) * 1000 })
		s.Load = of(func(m measurement) float64 { return m.Load })
		speed := func(m measurement) float64 { return m.InstancesPerSecond }
		thrift := func(m measurement) float64 { return float64(m.Instances) / m.CPUS }
		var cpuRatios []float64
		for k, m := range rounds {
			s.Rounds = append(s.Rounds, m.InstancesPerSecond)
			if best := bestOfOthers(measured, k, speed); best > 0 {
				s.Ratios = append(s.Ratios, speed(m)/best)
				cpuRatios = append(cpuRatios, thrift(m)/bestOfOthers(measured, k, thrift))
			}
		}
		if len(s.Ratios) > 0 {
			s.Ratio, s.CPURatio = median(s.Ratios), median(cpuRatios)
		}
		all = append(all, s)
	}
	return all
}

// bestOfOthers is the largest number that a system that isn't ours had in a round; 0 if none
// was measured.
func bestOfOthers(measured map[string][]measurement, round int, number func(m measurement) float64) float64 {
	best := 0.0
	for name, rounds := range measured {
		if !slices.Contains(ours, name) {
			best = max(best, number(rounds[round]))
		}
	}
	return best
}

func median(numbers []float64) float64 {
	n := slices.Sorted(slices.Values(numbers))
	return (n[(len(n)-1)/2] + n[len(n)/2]) / 2
}

// write prints a table, or an object for each system.
func write(w io.Writer, output string, all []summary) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for _, s := range all {
			if err := e.Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "system\tversion\tstorage\tinstances/s\tratio\tratios\tp50 ms\tp99 ms\tcpu s\tcpu ms each\tcpu ratio\tload\tdurability")
	for _, s := range all {
		ratios := "-"
		if len(s.Ratios) > 0 {
			ratios = fmt.Sprintf("%.2f to %.2f", slices.Min(s.Ratios), slices.Max(s.Ratios))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.0f\t%.2f\t%s\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.1f\t%s\n", s.Name, s.Version, s.Storage, s.InstancesPerSecond, s.Ratio,
			ratios, s.P50MS, s.P99MS, s.CPUS, s.CPUMSPerInstance, s.CPURatio, s.Load, s.Durability)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d clients, %d rounds on %d CPUs; medians; the ratio is to the best of the others in the same round\n",
		all[0].Clients, len(all[0].Rounds), all[0].CPUs)
	return err
}
