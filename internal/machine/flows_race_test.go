//go:build race

package machine

// Histories are few here: nothing runs at once, so the race detector has little to find and takes
// its time. .ci/test.sh runs the rest without it.
const (
	oracleFlows = 200
	lawSeeds    = 8
)
