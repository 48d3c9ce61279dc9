// Package prom gives an engine's metrics to Prometheus. Nothing else imports its client.
//
//	metrics := prom.New()
//	eng, err := workflow.Open(ctx, workflow.Config{Observer: metrics.Observer()})
//	http.Handle("/metrics", metrics.Handler(eng))
//
// Labels are names of definitions, tasks, event types and partitions, never ids.
package prom

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// Metrics collects what one engine does.
type Metrics struct {
	registry *prometheus.Registry

	started     *prometheus.CounterVec
	ended       *prometheus.CounterVec
	attempts    *prometheus.CounterVec
	handler     *prometheus.HistogramVec
	turns       *prometheus.CounterVec
	turn        prometheus.Histogram
	turnEvents  prometheus.Histogram
	late        prometheus.Histogram
	store       prometheus.Histogram
	storeErrors prometheus.Counter
	letters     prometheus.Counter
	mended      prometheus.Counter
	verified    prometheus.Counter
	differences prometheus.Counter
	quarantined *prometheus.CounterVec
}

// Buckets of latencies, in seconds: from a local fsync to a stalled broker.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New makes metrics that nothing feeds yet.
func New() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &Metrics{
		registry:    prometheus.NewRegistry(),
		started:     counter("dagger_instances_started_total", "Instances started, also again after a failure.", "definition"),
		ended:       counter("dagger_instances_ended_total", "Instances whose run ended.", "definition", "outcome"),
		attempts:    counter("dagger_task_attempts_total", "Attempts of tasks by how they ended.", "definition", "outcome"),
		turns:       counter("dagger_transactions_total", "Transactions of owners.", "outcome"),
		turn:        histogram("dagger_transaction_seconds", "From the first append of a transaction to the answer of its commit.", seconds),
		turnEvents:  histogram("dagger_transaction_events", "Events in a transaction.", prometheus.ExponentialBuckets(1, 4, 7)),
		late:        histogram("dagger_timer_lateness_seconds", "How long after its time a timer fired.", seconds),
		store:       histogram("dagger_store_apply_seconds", "How long the store took for a batch.", seconds),
		quarantined: counter("dagger_instances_quarantined_total", "Instances set aside because a decision or fold failed.", "definition"),
		storeErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "dagger_store_errors_total", Help: "Batches that the store refused or failed."}),
		letters:     prometheus.NewCounter(prometheus.CounterOpts{Name: "dagger_deadletters_total", Help: "Messages and requests set aside."}),
		verified:    prometheus.NewCounter(prometheus.CounterOpts{Name: "dagger_verified_instances_total", Help: "Instances that the background verifier compared with the log."}),
		differences: prometheus.NewCounter(prometheus.CounterOpts{Name: "dagger_verify_differences_total", Help: "Differences that it found; it should stay 0."}),
		mended:      prometheus.NewCounter(prometheus.CounterOpts{Name: "dagger_rescan_mended_total", Help: "Timers that only the rescan found; it should stay 0."}),
	}
	m.handler = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dagger_handler_seconds", Help: "How long an attempt of a task ran.", Buckets: seconds}, []string{"definition", "task", "outcome"})
	m.registry.MustRegister(m.started, m.ended, m.attempts, m.handler, m.turns, m.turn, m.turnEvents, m.late, m.store,
		m.storeErrors, m.letters, m.mended, m.quarantined, m.verified, m.differences,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Observer is what workflow.Config.Observer takes.
func (m *Metrics) Observer() workflow.Observer {
	return workflow.Observer{
		Event: m.event,
		Turn: func(took time.Duration, events int, err error) {
			if err != nil {
				m.turns.WithLabelValues("failed").Inc()
				return
			}
			m.turns.WithLabelValues("committed").Inc()
			m.turn.Observe(took.Seconds())
			m.turnEvents.Observe(float64(events))
		},
		Timer: func(late time.Duration) { m.late.Observe(late.Seconds()) },
		Handler: func(definition, path string, took time.Duration, ok bool) {
			m.handler.WithLabelValues(definition, path, outcome(ok)).Observe(took.Seconds())
		},
		Store: func(took time.Duration, _ int, err error) {
			if err != nil {
				m.storeErrors.Inc()
				return
			}
			m.store.Observe(took.Seconds())
		},
		DeadLetter: m.letters.Inc,
		Mended:     m.mended.Inc,
		Verified: func(instances, differences int) {
			m.verified.Add(float64(instances))
			m.differences.Add(float64(differences))
		},
	}
}

func outcome(ok bool) string {
	if ok {
		return "ok"
	}
	return "failed"
}

func (m *Metrics) event(typ eventlog.Type, definition string) {
	switch typ {
	case eventlog.InstanceStarted:
		m.started.WithLabelValues(definition).Inc()
	case eventlog.InstanceCompleted:
		m.ended.WithLabelValues(definition, "completed").Inc()
	case eventlog.InstanceFailed:
		m.ended.WithLabelValues(definition, "failed").Inc()
	case eventlog.InstanceStopped:
		m.ended.WithLabelValues(definition, "stopped").Inc()
	case eventlog.InstanceQuarantined:
		m.quarantined.WithLabelValues(definition).Inc()
	case eventlog.TaskCompleted:
		m.attempts.WithLabelValues(definition, "completed").Inc()
	case eventlog.TaskFailed:
		m.attempts.WithLabelValues(definition, "failed").Inc()
	case eventlog.AttemptFailed:
		m.attempts.WithLabelValues(definition, "retried").Inc()
	case eventlog.AttemptTimedOut:
		m.attempts.WithLabelValues(definition, "timed out").Inc()
	case eventlog.AttemptInterrupted:
		m.attempts.WithLabelValues(definition, "interrupted").Inc()
	}
}

// Handler serves the metrics, with those of eng's partitions and slots as they stand.
func (m *Metrics) Handler(eng *workflow.Engine) http.Handler {
	all := prometheus.NewRegistry()
	all.MustRegister(engineCollector{eng})
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, all}, promhttp.HandlerOpts{})
}

// engineCollector reads an engine's gauges when it is asked.
type engineCollector struct{ eng *workflow.Engine }

var (
	ready    = prometheus.NewDesc("dagger_partition_ready", "1 when the partition's owner is in its loop.", []string{"partition"}, nil)
	events   = prometheus.NewDesc("dagger_partition_events", "Number of the last event folded.", []string{"partition"}, nil)
	storeLag = prometheus.NewDesc("dagger_partition_store_lag_events", "Events that the store has not taken yet.", []string{"partition"}, nil)
	queued   = prometheus.NewDesc("dagger_partition_queued", "Requests, results and calls that wait for the owner.", []string{"partition"}, nil)
	slots    = prometheus.NewDesc("dagger_handler_slots", "Places for handlers.", []string{"state"}, nil)
)

func (c engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ready, events, storeLag, queued, slots} {
		ch <- d
	}
}

func (c engineCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	for _, p := range c.eng.Partitions() {
		label := strconv.Itoa(int(p.Partition))
		up := 0.0
		if p.Ready {
			up = 1
		}
		gauge(ready, up, label)
		gauge(events, float64(p.Event), label)
		gauge(storeLag, float64(p.Event-min(p.Event, p.Stored)), label)
		gauge(queued, float64(p.Queued), label)
	}
	s := c.eng.Slots()
	gauge(slots, float64(s.Total), "total")
	gauge(slots, float64(s.Running), "running")
	gauge(slots, float64(s.Queued), "queued")
	gauge(slots, float64(s.Parked), "no code")
}
