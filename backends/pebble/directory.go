package pebble

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/projection"
)

const (
	identityFile = "STORE"
	lockFile     = "LOCK"
	pidFile      = "PID"

	// format is that of the directory; the format of rows is the engine's business.
	format = 1
)

// beside is what a new directory may hold; a file system has its own.
var beside = []string{lockFile, pidFile, pidFile + ".new", identityFile + ".new", "lost+found"}

// identity is what STORE holds.
type identity struct {
	Format     int    `json:"format"`
	App        string `json:"app"`
	Partitions int32  `json:"partitions"`
}

func partitionDir(n int32) string { return "p-" + strconv.Itoa(int(n)) }

func (s *Store) epochFile(n int32) string {
	return s.fs.PathJoin(s.dir, partitionDir(n)+".epoch")
}

// makeDir creates dir and returns its one name: the lock within a process goes by name.
func makeDir(fsys vfs.FS, dir string) (string, error) {
	if fsys == vfs.Default {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		dir = abs
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if fsys == vfs.Default {
		return filepath.EvalSymlinks(dir)
	}
	return dir, nil
}

// lockDir takes the directory for this process and leaves its id for others to read.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	pidName := fsys.PathJoin(dir, pidFile)
	lock, err := fsys.Lock(fsys.PathJoin(dir, lockFile))
	if err != nil {
		if _, ok := errors.AsType[*os.PathError](err); ok { // the file, not the lock
			return nil, err
		}
		pid, err := readFile(fsys, pidName)
		if err != nil || len(pid) == 0 {
			return nil, fmt.Errorf("%w: %s", projection.ErrInUse, dir)
		}
		return nil, fmt.Errorf("%w: %s is in use by pid %s", projection.ErrInUse, dir, strings.TrimSpace(string(pid)))
	}
	if err := writeFile(fsys, pidName, strconv.AppendInt(nil, int64(os.Getpid()), 10), false); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

func (s *Store) unlock() error {
	err := s.fs.Remove(s.fs.PathJoin(s.dir, pidFile))
	return errors.Join(err, s.lock.Close())
}

// checkIdentity writes STORE into a new directory and compares it in an old one.
func (s *Store) checkIdentity() error {
	want := identity{Format: format, App: s.id.App, Partitions: s.id.Partitions}
	name := s.fs.PathJoin(s.dir, identityFile)
	raw, err := readFile(s.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		names, err := s.fs.List(s.dir)
		if err != nil {
			return err
		}
		for _, n := range names {
			if strings.HasPrefix(n, "p-") {
				return fmt.Errorf("%w: %s has partitions and no file %s", projection.ErrForeign, s.dir, identityFile)
			}
			if !slices.Contains(beside, n) {
				return fmt.Errorf("%w: %s is no store and holds %s; name an empty directory", projection.ErrForeign, s.dir, n)
			}
		}
		raw, err := json.Marshal(want)
		if err != nil {
			return err
		}
		return writeFile(s.fs, name, append(raw, '\n'), true)
	}
	if err != nil {
		return err
	}
	var have identity
	if err := json.Unmarshal(raw, &have); err != nil {
		return fmt.Errorf("%w: %s in %s can't be read", projection.ErrForeign, identityFile, s.dir)
	}
	switch {
	case have.Format > format:
		return fmt.Errorf("%w: %s has format %d, this version knows %d", projection.ErrForeign, s.dir, have.Format, format)
	case have.App != want.App:
		return fmt.Errorf("%w: %s belongs to %q, not to %q", projection.ErrForeign, s.dir, have.App, want.App)
	case have.Partitions != want.Partitions:
		return fmt.Errorf("%w: %s has %d partitions, %q has %d", projection.ErrForeign, s.dir, have.Partitions, want.App, want.Partitions)
	}
	return nil
}

// removeDropped finishes drops that a crash cut off.
func (s *Store) removeDropped() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "p-") && strings.HasSuffix(n, ".dropped") {
			if err := s.fs.RemoveAll(s.fs.PathJoin(s.dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readEpoch returns 0 when there is no file.
func readEpoch(fsys vfs.FS, name string) (uint64, error) {
	raw, err := readFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read epoch: %s holds no number", name)
	}
	return epoch, nil
}

func readFile(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// writeFile replaces a small file as a whole; sync makes it survive a power loss.
func writeFile(fsys vfs.FS, name string, content []byte, sync bool) error {
	temp := name + ".new"
	f, err := fsys.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && sync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(temp, name); err != nil || !sync {
		return err
	}
	return syncDir(fsys, fsys.PathDir(name))
}

// syncDir makes renames in dir survive a power loss.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
