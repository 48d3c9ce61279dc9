//go:build linux || darwin

package embedlog

import "syscall"

// freeSpace is how many bytes a user may still write on the disk of a directory.
func freeSpace(dir string) (free uint64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return s.Bavail * uint64(s.Bsize), true
}
