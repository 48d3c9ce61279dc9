//go:build race

package engine

// simSeeds is small here: one goroutine drives it all, so the race detector has little to find
// and takes its time. .ci/test.sh runs the rest without it.
const simSeeds = 10

// walkEvents is how long the logs of TestWalk are.
const walkEvents = 150

// searchedPoints is how many moments of an id's life TestSearch looks at, of each kind.
const searchedPoints = 1
