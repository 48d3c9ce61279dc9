package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/godagger/dagger/projection"
)

// Cursor says that a follower of a partition still needs the events from N on. While it is in
// the bucket, no policy trims them.
type Cursor struct {
	Name      string `json:"name"`
	Partition int32  `json:"partition"`
	N         uint64 `json:"n"`
	LogID     string `json:"log_id"`
}

const cursorSuffix = ".cursor"

func (c *Cursor) object(app string) (string, error) {
	for _, r := range c.Name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return "", fmt.Errorf("snapshot: cursor %q: its name has more than letters, digits and -_.", c.Name)
		}
	}
	if c.Name == "" {
		return "", errors.New("snapshot: a cursor needs a name")
	}
	return folder(app, c.Partition) + c.Name + cursorSuffix, nil
}

// PutCursor stores a cursor in the place of the one with its name and partition.
func PutCursor(ctx context.Context, b Bucket, app string, c Cursor) error {
	name, err := c.object(app)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("put cursor: %w", err)
	}
	return b.Put(ctx, name, bytes.NewReader(append(raw, '\n')))
}

// DeleteCursor removes a cursor: its follower needs nothing any more.
func DeleteCursor(ctx context.Context, b Bucket, app string, c Cursor) error {
	name, err := c.object(app)
	if err != nil {
		return err
	}
	return b.Delete(ctx, name)
}

// Cursors lists those of a partition. One that can't be read is an error: who trims must not
// guess.
func Cursors(ctx context.Context, b Bucket, id projection.Identity, partition int32) ([]Cursor, error) {
	names, err := b.List(ctx, folder(id.App, partition))
	if err != nil {
		return nil, fmt.Errorf("list cursors: %w", err)
	}
	var list []Cursor
	for _, name := range names {
		if !strings.HasSuffix(name, cursorSuffix) {
			continue
		}
		r, err := b.Get(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("list cursors: %w", err)
		}
		raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("list cursors: %w", err)
		}
		var c Cursor
		if err := json.Unmarshal(raw, &c); err != nil || c.Name == "" {
			return nil, fmt.Errorf("%w: %s is no cursor", ErrDamaged, name)
		}
		list = append(list, c)
	}
	return list, nil
}

// CursorIn is a projection.FollowOptions.Cursor that keeps a follower's cursors in a bucket.
func CursorIn(b Bucket, app, name string) func(ctx context.Context, partition int32, needs uint64, logID string) error {
	return func(ctx context.Context, partition int32, needs uint64, logID string) error {
		return PutCursor(ctx, b, app, Cursor{Name: name, Partition: partition, N: needs, LogID: logID})
	}
}
