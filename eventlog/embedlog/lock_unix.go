//go:build unix

package embedlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/godagger/dagger/eventlog"
)

const lockFile = "dagger.lock"

// dirLock holds a directory; the operating system lets go of it when the process ends,
// however it ends. A nil dirLock holds nothing.
type dirLock struct{ f *os.File }

func lockDir(dir, url string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock log directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock log directory: %w", err)
		}
		pid, holder := "?", "?"
		if b, err := os.ReadFile(path); err == nil {
			if lines := strings.Split(string(b), "\n"); len(lines) > 1 {
				pid, holder = lines[0], lines[1]
			}
		}
		return nil, fmt.Errorf("%w: %s is in use by pid %s (%s)", eventlog.ErrInUse, dir, pid, holder)
	}
	l := &dirLock{f}
	if err := l.write(url); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// checkDir refuses a directory that is no log and holds something else, which would lie among
// the log's files and be lost with them.
func checkDir(dir string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into log directory: %w", err)
	}
	other := ""
	for _, f := range found {
		switch f.Name() {
		case lockFile, markFile:
			return nil
		case "lost+found": // the file system's own
		default:
			other = f.Name()
		}
	}
	if other != "" {
		return fmt.Errorf("%w: %s is no log and holds %s; name an empty directory", eventlog.ErrURL, dir, other)
	}
	return nil
}

// write says who holds the directory.
func (l *dirLock) write(url string) error {
	if l == nil {
		return nil
	}
	text := fmt.Sprintf("%d\n%s\n", os.Getpid(), url)
	_, err := l.f.WriteAt([]byte(text), 0)
	if err == nil {
		err = l.f.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", lockFile, err)
	}
	return nil
}

func (l *dirLock) release() {
	if l != nil {
		_ = l.f.Truncate(0)
		l.f.Close()
	}
}
