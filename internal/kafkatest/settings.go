package kafkatest

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
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

// fencedLine is what the controller logs when it gives up a broker.
const fencedLine = "Fencing broker 1 "

// controllerOnly are the settings of the same node without the broker.
func controllerOnly(props string) string {
	var out strings.Builder
	for line := range strings.Lines(props) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
		case "process.roles":
			line = key + "=controller\n"
		case "listeners", "advertised.listeners":
			_, controller, _ := strings.Cut(value, ",")
			line = key + "=" + controller + "\n"
		case "inter.broker.listener.name":
			line = ""
		}
		out.WriteString(line)
	}
	return out.String()
}

// settings are those of a single node that starts fast, sorted by name.
func settings(port, controller int, data string, more map[string]string) [][2]string {
	all := map[string]string{
		"process.roles":                         "broker,controller",
		"node.id":                               "1",
		"controller.quorum.bootstrap.servers":   fmt.Sprintf("127.0.0.1:%d", controller),
		"listeners":                             fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", port, controller),
		"advertised.listeners":                  fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", port, controller),
		"listener.security.protocol.map":        "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"controller.listener.names":             "CONTROLLER",
		"inter.broker.listener.name":            "PLAINTEXT",
		"log.dirs":                              data,
		"auto.create.topics.enable":             "false",
		"group.initial.rebalance.delay.ms":      "0",
		"log.cleaner.dedupe.buffer.size":        "4194304",
		"offsets.topic.num.partitions":          "4",
		"offsets.topic.replication.factor":      "1",
		"transaction.state.log.num.partitions":  "4",
		"transaction.state.log.min.isr":         "1",
		"default.replication.factor":            "1",
		"min.insync.replicas":                   "1",
		"share.coordinator.state.topic.min.isr": "1",
		// A killed single node waits out its own old session before it starts again.
		"broker.session.timeout.ms":                        "1500",
		"broker.heartbeat.interval.ms":                     "300",
		"transaction.state.log.replication.factor":         "1",
		"share.coordinator.state.topic.replication.factor": "1",
	}
	maps.Copy(all, more)
	var sorted [][2]string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		sorted = append(sorted, [2]string{k, all[k]})
	}
	return sorted
}
