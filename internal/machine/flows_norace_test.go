//go:build !race

package machine

const oracleFlows = 2000
