// Package workflow is the door to Dagger: define, register, run, start, inspect, repair.
package workflow
