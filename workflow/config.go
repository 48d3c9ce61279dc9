package workflow

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// The pair that a zero Config opens.
const (
	defaultLog   = "file:dagger-data/log"
	defaultStore = "pebble:dagger-data/store"
)

// Config says what an engine runs on. Every field's zero value works.
type Config struct {
	// Log is the URL of the log, e.g. kafka://localhost:9092/pizza; "" is
	// file:dagger-data/log. Its driver must be linked, by a blank import of
	// eventlog/kafkalog or eventlog/embedlog.
	Log string
	// Store is the URL of the store; "" is pebble:dagger-data/store, or mem: with the log
	// mem:. Its driver must be linked, by a blank import of backends/all or of one backend.
	Store string
	// OpenedLog and OpenedStore are used instead of opening Log and Store. They are not
	// closed with the engine, and may be shared: engines on one log share the work.
	OpenedLog   eventlog.Log
	OpenedStore projection.Store

	Logger *slog.Logger // nil: slog.Default()
	Worker string       // name of this process in the log; "" = host and process id
	// Address is the URL where other processes can ask this one, http://host:port and perhaps a
	// path: the root of webui, or of Engine.Peers; "" = nowhere. It stands in the log. With a
	// store that each process has for itself, as Pebble, lists need it.
	Address string
	// PeerClient asks other processes at their addresses, with certificates or a token for
	// example; nil: a plain one that goes through no proxy. It must not follow redirects.
	PeerClient *http.Client

	Slots           int           // handlers that run at once; 0 = 256
	TriggerInterval time.Duration // between two looks for work that memory forgot; 0 = 60 s
	MaxPerTrigger   int           // timers that one look starts in a partition; 0 = 1,000
	ProjectInterval time.Duration // how long the store may be behind while there is work; 0 = 200 ms
	CacheBytes      int64         // instances in memory; 0 = 64 MiB
	ShutdownTimeout time.Duration // how long handlers may go on after Run was told to end; 0 = 25 s

	// UpdatesTopic is a topic that gets the whole instance, a Tree as JSON, after each of its
	// events and in the same transaction; its key is the instance's partition key. "" = no
	// updates. It is created with one partition unless it exists. See docs/http.md.
	UpdatesTopic string

	// Snapshots of the store; the zero value takes none.
	Snapshots Snapshots
	// VerifyInterval switches a background verifier on: once in this time it compares all
	// instances of this engine's partitions with a fold of the log, with a tenth of a
	// processor at most. It tells Observer.Verified and the log. 0 = off.
	VerifyInterval time.Duration

	// Propagator carries the trace context of a start to the handlers of its instance, for a
	// tracing library: see package telemetry/otel. nil: only WithTrace and TraceFrom do.
	Propagator Propagator

	// Observer is told what the engine does, for metrics; see package telemetry/prom.
	Observer Observer
}

// validate tells all mistakes.
func (c *Config) validate() error {
	var mistakes []error
	mistake := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("open engine: "+format, args...))
	}
	if c.Log != "" && c.OpenedLog != nil {
		mistake("Log and OpenedLog exclude each other")
	}
	if c.Store != "" && c.OpenedStore != nil {
		mistake("Store and OpenedStore exclude each other")
	}
	if why := badAddress(c.Address); why != "" {
		mistake("Address %s", why)
	}
	if why := badTopic(c.UpdatesTopic); c.UpdatesTopic != "" && why != "" {
		mistake("UpdatesTopic %s", why)
	}
	atLeast0 := func(name string, negative bool, value any) {
		if negative {
			mistake("%s is %v; 0 is the default", name, value)
		}
	}
	atLeast0("Slots", c.Slots < 0, c.Slots)
	atLeast0("TriggerInterval", c.TriggerInterval < 0, c.TriggerInterval)
	atLeast0("MaxPerTrigger", c.MaxPerTrigger < 0, c.MaxPerTrigger)
	atLeast0("ProjectInterval", c.ProjectInterval < 0, c.ProjectInterval)
	atLeast0("CacheBytes", c.CacheBytes < 0, c.CacheBytes)
	atLeast0("VerifyInterval", c.VerifyInterval < 0, c.VerifyInterval)
	atLeast0("ShutdownTimeout", c.ShutdownTimeout < 0, c.ShutdownTimeout)
	mistakes = append(mistakes, c.Snapshots.mistakes()...)
	return errors.Join(mistakes...)
}

// badAddress says why nobody can ask at an address. A password in it would stand in the log.
func badAddress(address string) string {
	if address == "" {
		return ""
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return "is no URL"
	case u.User != nil:
		return "has a user or a password, which everybody would read in the log; see PeerClient"
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Sprintf("is %q; it must be like http://host:port", address)
	}
	return ""
}

// urls are those to open, with the defaults.
func (c *Config) urls() (log, store string) {
	log, store = c.Log, c.Store
	if log == "" {
		log = defaultLog
	}
	if store == "" {
		store = defaultStore
		if strings.HasPrefix(log, "mem:") || c.OpenedLog != nil && strings.HasPrefix(c.OpenedLog.URL(), "mem:") {
			store = "mem:"
		}
	}
	return log, store
}
