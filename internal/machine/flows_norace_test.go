//go:build !race

package machine

const (
	oracleFlows = 2000
	lawSeeds    = 80
)
