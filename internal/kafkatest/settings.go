package kafkatest

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (b *Broker) logConfig() string { return filepath.Join(b.dir, "log4j2.properties") }

// log4j2 sends warnings to standard output, which is the broker's log file.
const log4j2 = `status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.controller.name = org.apache.kafka.controller.ReplicationControlManager
logger.controller.level = info
logger.broker.name = org.apache.kafka.controller.BrokerHeartbeatManager
logger.broker.level = info
`

// fencedLine is what the controller logs when it gives up a broker that is alone.
const fencedLine = "Fencing broker 1 "

// controllerOnly are the settings of the same node without the broker.
func controllerOnly(props string) string {
	var out strings.Builder
	for line := range strings.Lines(props) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "process.roles":
			line = key + "=controller\n"
		case "listeners", "advertised.listeners":
			all := strings.Split(value, ",")
			controller := slices.IndexFunc(all, func(l string) bool { return strings.HasPrefix(l, "CONTROLLER://") })
			line = key + "=" + all[controller] + "\n"
		case "inter.broker.listener.name":
			line = ""
		}
		out.WriteString(line)
	}
	return out.String()
}

// settings are those of a node that starts fast.
func (b *Broker) settings() map[string]string {
	listeners := fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s", b.Addr(), loopback(b.controller))
	all := map[string]string{
		"process.roles":                        "broker,controller",
		"node.id":                              strconv.Itoa(b.node),
		"listeners":                            listeners,
		"advertised.listeners":                 listeners,
		"listener.security.protocol.map":       "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"controller.listener.names":            "CONTROLLER",
		"inter.broker.listener.name":           "PLAINTEXT",
		"log.dirs":                             filepath.Join(b.dir, "data"),
		"auto.create.topics.enable":            "false",
		"group.initial.rebalance.delay.ms":     "0",
		"log.cleaner.dedupe.buffer.size":       "4194304",
		"offsets.topic.num.partitions":         "4",
		"transaction.state.log.num.partitions": "4",
		// A killed single node waits out its own old session before it starts again.
		"broker.session.timeout.ms":    "1500",
		"broker.heartbeat.interval.ms": "300",
	}
	replication, insync := 1, 1
	if b.voters == "" {
		all["controller.quorum.bootstrap.servers"] = loopback(b.controller)
	} else {
		all["controller.quorum.voters"] = b.voters
		// Three nodes on a busy machine: none is to be given up while it only waits.
		all["broker.session.timeout.ms"] = "3000"
		all["replica.lag.time.max.ms"] = "5000"
		replication, insync = 3, 2
	}
	for _, name := range []string{
		"offsets.topic.replication.factor", "transaction.state.log.replication.factor",
		"share.coordinator.state.topic.replication.factor", "default.replication.factor",
	} {
		all[name] = strconv.Itoa(replication)
	}
	for _, name := range []string{"transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr", "min.insync.replicas"} {
		all[name] = strconv.Itoa(insync)
	}
	return all
}

// properties are settings as a file, sorted by name.
func properties(all map[string]string) []byte {
	var out bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&out, "%s=%s\n", k, all[k])
	}
	return out.Bytes()
}
