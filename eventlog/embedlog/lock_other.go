//go:build !unix

package embedlog

// dirLock does nothing here: Pebble's own lock on its files refuses a second process.
type dirLock struct{}

func lockDir(string, string) (*dirLock, error) { return nil, nil }
func (*dirLock) write(string) error            { return nil }
func (*dirLock) release()                      {}
