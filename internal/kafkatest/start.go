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
