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

// Config says what an engine runs on. The zero value of every field works.
type Config struct {
	// Log is the URL of the log, for example kafka://localhost:9092/pizza; "" is
	// file:dagger-data/log. The program must import its driver: eventlog/kafkalog or
	// eventlog/embedlog.
	Log string
	// Store is the URL of the store; "" is pebble:dagger-data/store, or mem: if the log is mem:. The
	// program must import its driver: one of backends/..., or backends/all.
	Store string
	// OpenedLog and OpenedStore are used instead of Log and Store. The engine does not close them,
	// and several engines may share them: engines on one log share its work.
	OpenedLog   eventlog.Log
	OpenedStore projection.Store

	Logger *slog.Logger // nil: slog.Default()
	Worker string       // name of this process in the log; "" = host and process id
	// Address is the URL, such as http://host:port/path, at which other processes reach the handler
	// of package webui, or Engine.Peers, of this one; "" = they can't. It is recorded in the log.
	// If each process has a store of its own, as with Pebble, lists need it: a process asks the
	// others for what they have.
	Address string
	// PeerClient is used to ask other processes at their addresses, perhaps with certificates or a
	// token; nil: a plain client that uses no proxy. It must not follow redirects.
	PeerClient *http.Client

	Slots           int           // handlers that run at once; 0 = 256
	TriggerInterval time.Duration // between two looks into the store for due timers that memory has lost; 0 = 60 s
	MaxPerTrigger   int           // due timers that one transaction of a partition handles; 0 = 1,000
	ProjectInterval time.Duration // how long changes may wait before they are written to the store; 0 = 200 ms
	CacheBytes      int64         // memory for instances, of all partitions together; 0 = 64 MiB
	ShutdownTimeout time.Duration // how long handlers may go on after the context of Run has ended; 0 = 25 s

	// UpdatesTopic is a topic that gets the whole instance, a Tree as JSON, after each of its
	// events and in the same transaction, under the instance's partition key; "" = none. It is
	// created with one partition if it does not exist. See docs/http.md.
	UpdatesTopic string

	// Snapshots says when snapshots of the store are taken; the zero value takes none.
	Snapshots Snapshots
	// VerifyInterval switches a background verifier on. Once in this time it compares all instances
	// of this engine's partitions with the log, using at most a tenth of a processor. It reports
	// to Observer.Verified and Logger. 0 = off.
	VerifyInterval time.Duration

	// Propagator connects the engine with a tracing library; see package telemetry/otel. nil: only
	// WithTrace and TraceFrom carry trace contexts.
	Propagator Propagator

	// Observer gets what the engine does, for metrics; see package telemetry/prom.
	Observer Observer
}

// validate joins all mistakes.
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
