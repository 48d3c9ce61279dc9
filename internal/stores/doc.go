// Package stores has the tests that compare all backends with each other. Its table is
// backends_test.go: a backend joins there, and is then in the comparison of dumps and in the
// table of benchmarks.
//
//	go test -v -run Dump ./internal/stores                 dump sha256=… of each, equal
//	go test -v -run BenchmarkTable ./internal/stores -table one table for all
package stores
