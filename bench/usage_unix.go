//go:build unix

package main

import (
	"runtime"
	"syscall"
)

func usage() (u syscall.Rusage) {
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // can't fail with these arguments
	return u
}

// cpuSeconds is the CPU time of this process, user and system.
func cpuSeconds() float64 {
	u := usage()
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// peakRSS is the most memory that this process had, in MB.
func peakRSS() float64 {
	max := float64(usage().Maxrss)
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return max / 1e6 // bytes
	}
	return max * 1024 / 1e6
}
