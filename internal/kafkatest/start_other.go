//go:build !linux

package kafkatest

import (
	"os/exec"
	"syscall"
)

func dieTogether() *syscall.SysProcAttr { return nil }

func start(cmd *exec.Cmd) (<-chan struct{}, error) { return startOn(cmd, func() {}) }
