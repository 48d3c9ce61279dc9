package pebble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	cdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/projection"
)

// Checkpoint implements projection.Checkpointer: dir becomes a store with that partition, or
// gets it beside the others that it has. Tables are linked, not copied, where dir is on the
// same disk. The worker's own work goes on meanwhile.
func (s *Store) Checkpoint(ctx context.Context, n int32, dir string) (projection.Watermark, error) {
	w, err := s.checkpoint(ctx, n, dir)
	if err != nil {
		return projection.Watermark{}, fmt.Errorf("checkpoint partition %d: %w", n, err)
	}
	return w, nil
}

func (s *Store) checkpoint(ctx context.Context, n int32, dir string) (projection.Watermark, error) {
	v, err := s.View(ctx, n)
	if err != nil {
		return projection.Watermark{}, err
	}
	h := v.(*handle)
	defer h.Close()
	if s.fs == vfs.Default {
		if dir, err = filepath.Abs(dir); err != nil {
			return projection.Watermark{}, err
		}
	}
	if err := s.prepareCheckpoint(dir); err != nil {
		return projection.Watermark{}, err
	}
	target := s.fs.PathJoin(dir, partitionDir(n))
	if _, err := s.fs.Stat(target); err == nil {
		return projection.Watermark{}, fmt.Errorf("%s is there already", target)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return projection.Watermark{}, err
	}
	db, err := h.begin(ctx)
	if err != nil {
		return projection.Watermark{}, err
	}
	defer h.p.use.RUnlock()
	if db == nil {
		if err := h.p.share(); err != nil {
			return projection.Watermark{}, err
		}
		defer h.p.mu.RUnlock()
		return h.p.watermark, nil
	}
	// Without a log, only what is in tables can be copied.
	if s.options.NoWAL {
		if err := flushTables(ctx, db); err != nil {
			return projection.Watermark{}, err
		}
	}
	// Which files belong to it is known once half of it is there, so it gets its name last.
	part := target + ".part"
	if err := s.fs.RemoveAll(part); err != nil {
		return projection.Watermark{}, err
	}
	if err := db.Checkpoint(part, cdb.WithFlushedWAL()); err != nil {
		return projection.Watermark{}, h.p.readError(err)
	}
	w, err := s.watermarkIn(part)
	if err != nil {
		return projection.Watermark{}, err
	}
	if err := writeFile(s.fs, target+".epoch", fmt.Appendln(nil, w.Epoch), true); err != nil {
		return projection.Watermark{}, err
	}
	if err := s.fs.Rename(part, target); err != nil {
		return projection.Watermark{}, err
	}
	return w, syncDir(s.fs, dir)
}

// prepareCheckpoint makes dir a store of the same application, or checks that it is one.
func (s *Store) prepareCheckpoint(dir string) error {
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := s.fs.PathJoin(dir, identityFile)
	want := identity{Format: format, App: s.id.App, Partitions: s.id.Partitions}
	raw, err := readFile(s.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		names, err := s.fs.List(dir)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%s is neither empty nor a store", dir)
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
	if err := json.Unmarshal(raw, &have); err != nil || have != want {
		return fmt.Errorf("%w: %s holds another store", projection.ErrForeign, dir)
	}
	return nil
}

// watermarkIn reads where a copied database stands, which is where it stood when it was
// copied.
func (s *Store) watermarkIn(dir string) (projection.Watermark, error) {
	db, err := cdb.Open(dir, &cdb.Options{FS: s.fs, FormatMajorVersion: cdb.FormatNewest, Logger: quiet{}})
	if err != nil {
		return projection.Watermark{}, fmt.Errorf("open the copy: %w", err)
	}
	w, err := readWatermark(db)
	return w, errors.Join(err, db.Close())
}
