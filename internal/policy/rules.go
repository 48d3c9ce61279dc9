package policy

// rule is what one package may import beside the standard library.
type rule struct {
	ours   []string // packages of this module
	theirs []string // modules of others
	tests  []string // modules of others that its tests may use too
	never  []string // packages of the standard library that it must do without
	kit    bool     // for tests of others: may import testing
}

// Modules of others.
const (
	pebble    = "github.com/cockroachdb/pebble/v2/..."
	franz     = "github.com/twmb/franz-go/..."
	kafkaFake = "github.com/twmb/franz-go/pkg/kfake"
	cobra     = "github.com/spf13/cobra/..."
	bar       = "github.com/schollz/progressbar/v3/..."
	term      = "golang.org/x/term"
	goCmp     = "github.com/google/go-cmp/..."
	rapid     = "pgregory.net/rapid"
	ids       = "github.com/google/uuid"
	composeG  = "github.com/compose-spec/compose-go/v2/..."
)

// testModules are for the tests of every package.
var testModules = []string{goCmp, rapid, "go.uber.org/goleak", "github.com/rogpeppe/go-internal/testscript", kafkaFake}

// kits are what tests of every package may import of ours: suites, references, and what
// starts, drives and audits the real parts. Go itself refuses a cycle.
var kits = []string{
	"eventlog", "eventlog/eventlogtest", "eventlog/embedlog", "eventlog/kafkalog", "projection/storetest", "projection/snapshot/buckettest", "projection/memstore",
	"backends/pebble", "internal/kafkatest", "internal/audit", "workflowtest",
}

// impure is what the state machine must not know: time, chance, the outside.
var impure = []string{
	"context", "crypto/rand", "io/...", "log/...", "math/rand/...", "net/...", "os/...", "sync/...", "syscall",
}

// drivers are every log and every store.
var drivers = []string{"eventlog/kafkalog", "eventlog/embedlog", "projection/memstore", "backends/..."}

// public is what users have.
var public = append([]string{"eventlog", "projection", "projection/snapshot", "workflow"}, drivers...)

// rules, from the bottom to the top:
//
//	eventlog < projection < scheduler < internal/machine < internal/engine < workflow <
//	workflowtest, webui < cmd, examples
//
// internal/machine speaks of events only, so it imports eventlog alone. A driver knows its
// contract and its client, and no other driver.
var rules = map[string]rule{
	"eventlog":              {ours: []string{"internal/driver"}, tests: []string{franz}}, // its placement of keys is that of the client
	"eventlog/kafkalog":     {ours: []string{"eventlog"}, theirs: []string{franz}},
	"eventlog/embedlog":     {ours: []string{"eventlog"}, theirs: []string{pebble}},
	"eventlog/eventlogtest": {ours: []string{"eventlog"}, theirs: []string{goCmp, rapid}, kit: true},

	"projection":                     {ours: []string{"eventlog", "internal/driver"}},
	"projection/memstore":            {ours: []string{"projection", "eventlog"}},
	"projection/snapshot":            {ours: []string{"projection", "internal/driver"}, theirs: []string{"github.com/klauspost/compress/zstd"}},
	"projection/snapshot/gocloud":    {ours: []string{"projection/snapshot"}, theirs: []string{"gocloud.dev/blob", "gocloud.dev/gcerrors"}, tests: []string{"gocloud.dev/blob/..."}},
	"projection/snapshot/buckettest": {ours: []string{"projection/snapshot"}, kit: true},
	"projection/storetest":           {ours: []string{"projection", "projection/memstore", "eventlog"}, theirs: []string{goCmp, rapid}, kit: true},

	"backends/pebble":    {ours: []string{"projection"}, theirs: []string{pebble}},
	"backends/redis":     {ours: []string{"projection"}, theirs: []string{"github.com/redis/go-redis/v9/...", "github.com/klauspost/compress/s2"}, tests: []string{"github.com/alicebob/miniredis/v2"}},
	"backends/aerospike": {ours: []string{"projection"}, theirs: []string{"github.com/aerospike/aerospike-client-go/v7/...", "github.com/klauspost/compress/s2"}},
	"backends/all":       {ours: drivers},

	"internal/driver": {},

	"scheduler":         {ours: []string{"projection", "eventlog"}},
	"internal/machine":  {ours: []string{"eventlog"}, never: impure},
	"internal/drawing":  {ours: []string{"internal/machine", "eventlog"}, never: impure},
	"internal/seedview": {ours: []string{"internal/machine", "eventlog"}, never: impure},
	"internal/engine":   {ours: []string{"internal/machine", "internal/seedview", "scheduler", "projection", "projection/snapshot", "eventlog"}, theirs: []string{ids, "github.com/cespare/xxhash/v2"}},
	"internal/audit":    {ours: []string{"eventlog"}},

	"workflow": {ours: []string{"internal/engine", "internal/machine", "internal/seedview", "scheduler", "projection", "projection/snapshot", "eventlog"}, tests: []string{franz}}, // has a plain client
	"workflowtest": {
		ours: []string{"workflow", "projection", "projection/memstore", "eventlog", "eventlog/embedlog"}, kit: true,
	},
	"webui":          {ours: []string{"workflow", "projection", "eventlog", "telemetry/prom"}},
	"telemetry/otel": {ours: []string{"workflow", "eventlog"}, theirs: []string{"go.opentelemetry.io/otel/propagation"}, tests: []string{"go.opentelemetry.io/otel/trace"}},
	"telemetry/prom": {ours: []string{"workflow", "projection", "eventlog"}, theirs: []string{"github.com/prometheus/client_golang/..."}},

	"cmd/daggerctl": {
		ours:   append([]string{"internal/engine", "internal/machine", "internal/drawing", "internal/audit"}, public...),
		theirs: []string{cobra, "github.com/spf13/pflag", bar, term},
		tests:  []string{"github.com/alicebob/miniredis/v2", "github.com/redis/go-redis/v9"},
	},
	"examples/pizza":       {ours: public, theirs: []string{bar, term}},
	"examples/orders":      {ours: append([]string{"webui", "telemetry/prom"}, public...)},
	"examples/orders/play": {ours: public},
	"examples/toystore":    {ours: []string{"projection"}},
	"examples/follow":      {ours: public},
	"bench":                {ours: append([]string{"internal/engine"}, public...), theirs: []string{bar, term}},

	// What only the work on this module needs.
	"internal/chaos":                 {ours: append([]string{"internal/engine", "internal/audit", "internal/kafkatest"}, public...), tests: []string{franz, pebble, ids, "github.com/redis/go-redis/v9", "github.com/aerospike/aerospike-client-go/v7"}},
	"internal/stores":                {ours: append([]string{"internal/engine"}, public...), tests: []string{"github.com/alicebob/miniredis/v2"}},
	"internal/compose":               {theirs: []string{composeG}},
	"internal/kafkatest":             {theirs: []string{franz}, kit: true},
	"internal/kafkatest/kafkabroker": {ours: []string{"internal/kafkatest"}},
	"internal/kafkatest/itcount":     {},
	"internal/policy":                {tests: []string{franz}},
	"internal/policy/api":            {ours: []string{"internal/policy"}},
	"internal/policy/imports":        {ours: []string{"internal/policy"}},
	"internal/policy/testreport":     {},
}
