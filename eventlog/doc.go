// Package eventlog is the log that is the truth: events, requests and users' messages in
// topics with partitions. It holds the event and request types, their codec, the placement
// of ids, and the Log interface that its drivers kafkalog and embedlog fill. The suite
// eventlogtest.Run is the contract of a driver.
package eventlog
