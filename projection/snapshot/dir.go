package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dir is a bucket in a directory of this machine, or of a file server that renames atomically.
type dir struct{ path string }

// OpenDir opens a directory as a bucket. It is made when the first object is put.
func OpenDir(path string) (Bucket, error) {
	if path == "" {
		return nil, errors.New("open bucket: the directory has no name")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	return &dir{abs}, nil
}

func openDirURL(_ context.Context, u *url.URL) (Bucket, error) {
	if u.User != nil || u.Host != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("snapshot: the URL is file:///absolute/directory or file:relative/directory and nothing else")
	}
	path := u.Path
	if u.Opaque != "" {
		var err error
		if path, err = url.PathUnescape(u.Opaque); err != nil {
			return nil, errors.New("snapshot: the directory is badly escaped")
		}
	}
	return OpenDir(path)
}

func (d *dir) URL() string { return "file://" + filepath.ToSlash(d.path) }

// newSuffix is that of a file that is still being written.
const newSuffix = ".new"

func (d *dir) file(name string) (string, error) {
	if !fs.ValidPath(name) || name == "." {
		return "", fmt.Errorf("snapshot: %q is no name of an object", name)
	}
	return filepath.Join(d.path, filepath.FromSlash(name)), nil
}

func (d *dir) Put(ctx context.Context, name string, r io.Reader) error {
	file, err := d.file(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*"+newSuffix)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	_, err = io.Copy(f, readerOf(ctx, r))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it never had its name
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readerOf ends with the context's cause when ctx ends.
func readerOf(ctx context.Context, r io.Reader) io.Reader { return &ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context // of the one call that made it
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func (d *dir) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	file, err := d.file(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{readerOf(ctx, f), f}, nil
}

func (d *dir) List(ctx context.Context, prefix string) ([]string, error) {
	names := []string{}
	err := filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			return nil // no object yet, or deleted meanwhile
		case err != nil:
			return err
		case e.IsDir() || strings.HasSuffix(path, newSuffix):
			return nil
		}
		rel, err := filepath.Rel(d.path, path)
		if name := filepath.ToSlash(rel); err == nil && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s*: %w", prefix, err)
	}
	slices.Sort(names)
	return names, nil
}

func (d *dir) Delete(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	file, err := d.file(name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (d *dir) Close() error { return nil }
