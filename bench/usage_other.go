//go:build !unix

package main

// cpuSeconds is not known here.
func cpuSeconds() float64 { return 0 }

// peakRSS is not known here.
func peakRSS() float64 { return 0 }
