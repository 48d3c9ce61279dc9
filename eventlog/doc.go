// Package eventlog has the log of an application, which is the truth about its instances, and the
// types of what is in it.
//
// A log has topics, each with partitions, as Kafka has them. An application named app has these:
//
//	app.events       what happened: Event
//	app.requests     what is asked of instances: Request
//	app.definitions  the definitions that were registered
//	app.deadletter   messages and requests that nobody could take
//
// Events and requests have the same fixed number of partitions; PartitionOf says which of them
// an instance belongs to. docs/event-log.md describes every record.
//
// Log is the interface to a log. Package kafkalog implements it with Kafka, embedlog with a
// directory or memory. The suite eventlogtest.Run is the contract of an implementation.
package eventlog
