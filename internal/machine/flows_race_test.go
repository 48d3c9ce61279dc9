//go:build race

package machine

// oracleFlows is small here: nothing runs at once, so the race detector has little to find and
// takes its time.
const oracleFlows = 200
