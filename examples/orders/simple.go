package main

import (
	"context"

	"github.com/godagger/dagger/workflow"
)

const (
	simpleTopic     = "simple_topic"
	simpleStopTopic = "simple_topic_stop"
	simpleListener  = "SIMPLE_LISTENER"
)

// Simple is what an instance of SimpleWorkflow knows.
type Simple struct {
	SimpleID string `json:"simple_id"`
}

// SimpleMessage completes every instance that is named in it.
type SimpleMessage struct {
	SimpleID []string `json:"simple_id"`
}

// simpleLibrary has the process that others are composed of. It is registered like any
// definition; nobody starts it.
var simpleLibrary = workflow.New("SimpleLibrary",
	workflow.Process("SimpleProcess", workflow.Listen("wait", simpleListener,
		workflow.ByAny("simple_id", func(s *Simple) string { return s.SimpleID }, func(m *SimpleMessage) []string { return m.SimpleID }),
		func(context.Context, *Simple, SimpleMessage) (bool, error) { return true, nil })))

// composed is put together while the program runs. The same string starts an instance on one
// topic and stops it on another; it is the instance's id too.
func composed() *workflow.Definition[Simple] {
	def := workflow.New("SimpleWorkflow", simpleLibrary.Process("SimpleProcess"))
	def = workflow.StartOn(def, simpleTopic, func(_ context.Context, id *string) (string, Simple, error) {
		return *id, Simple{SimpleID: *id}, nil
	}, workflow.From(workflow.Earliest))
	return workflow.StopOn(def, simpleStopTopic, func(_ context.Context, id *string) (string, error) { return *id, nil },
		workflow.From(workflow.Earliest))
}
