package kafkatest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieTogether makes the kernel kill the child when the thread that started it ends, and
// keeps a terminal's interrupt from it, so that it stops only after its clients.
func dieTogether() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// start starts cmd from a thread that lives as long as the child, for the kernel's signal
// goes out when that thread ends, not the process. The channel is closed when the child has
// ended.
func start(cmd *exec.Cmd) (<-chan struct{}, error) { return startOn(cmd, runtime.LockOSThread) }
