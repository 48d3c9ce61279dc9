package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is the unit of /proc/PID/stat, the same on all Linux that Go runs on.
const ticksPerSecond = 100

// cpuSeconds is the CPU time, user and system, of this process and, if server is not 0, of
// that process and of its children, those that have ended too.
func cpuSeconds(server int) (float64, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	own := float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
	if server == 0 {
		return own, nil
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("read CPU time of the server: %w", err)
	}
	ticks, found := int64(0), false
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// The second field, a name in parentheses, may have spaces; the others don't.
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(f) < 15 {
			continue
		}
		// ppid is field 4 of proc(5); utime, stime, cutime and cstime are 14 to 17.
		at := func(field int) int64 {
			n, _ := strconv.ParseInt(f[field-3], 10, 64)
			return n
		}
		switch {
		case pid == server:
			found = true
			ticks += at(14) + at(15) + at(16) + at(17)
		case at(4) == int64(server):
			ticks += at(14) + at(15)
		}
	}
	if !found {
		return 0, fmt.Errorf("read CPU time: there is no process %d", server)
	}
	return own + float64(ticks)/ticksPerSecond, nil
}
