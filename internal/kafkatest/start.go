package kafkatest

import "os/exec"

// startOn starts cmd from a goroutine of its own, after prepare, and keeps the goroutine
// until the child has ended.
func startOn(cmd *exec.Cmd, prepare func()) (<-chan struct{}, error) {
	started, exit := make(chan error), make(chan struct{})
	go func() {
		defer close(exit)
		prepare()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in its log
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return exit, nil
}

// StartChild starts cmd so that it ends with this process, however that ends, where the system can
// see to it (Linux). The channel is closed when the child has ended; it must not be waited for in
// another way.
func StartChild(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = dieTogether()
	return start(cmd)
}
