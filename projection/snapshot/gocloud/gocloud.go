// Package gocloud lets snapshots go to any bucket that gocloud.dev/blob has a driver for. Import
// it, and the driver:
//
//	import (
//		_ "github.com/godagger/dagger/projection/snapshot/gocloud"
//		_ "gocloud.dev/blob/s3blob" // s3://bucket?region=eu-central-1
//	)
//
// gs and azblob are there in the same way. With a prefix=NAME/ in the URL the objects' names
// begin with it. The drivers' own settings and credentials are those that gocloud.dev/blob
// documents.
package gocloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"slices"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/godagger/dagger/projection/snapshot"
)

func init() {
	for _, scheme := range []string{"s3", "gs", "azblob"} {
		snapshot.Register(scheme, open)
	}
}

func open(ctx context.Context, u *url.URL) (snapshot.Bucket, error) {
	b, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("open bucket (its driver must be imported, e.g. _ %q): %w", "gocloud.dev/blob/"+u.Scheme+"blob", err)
	}
	return New(b, u.Redacted()), nil
}

// New makes a bucket of snapshots of one that is open, which Close then closes. url is what its
// URL method says, without secrets.
func New(b *blob.Bucket, url string) snapshot.Bucket { return &bucket{b, url} }

type bucket struct {
	b   *blob.Bucket
	url string
}

func (b *bucket) URL() string { return b.url }

// Put writes an object: the service makes it visible when it is closed, and not at all when the
// context has ended before.
func (b *bucket) Put(ctx context.Context, name string, r io.Reader) error {
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.b.NewWriter(writing, name, &blob.WriterOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if _, err := io.Copy(w, r); err != nil {
		cancel()
		return fmt.Errorf("put %s: %w", name, errors.Join(err, w.Close()))
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

func (b *bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := b.b.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("get %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	return r, nil
}

func (b *bucket) List(ctx context.Context, prefix string) ([]string, error) {
	names := []string{}
	for it := b.b.List(&blob.ListOptions{Prefix: prefix}); ; {
		o, err := it.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list %s*: %w", prefix, err)
		}
		names = append(names, o.Key)
	}
	slices.Sort(names)
	return names, nil
}

func (b *bucket) Delete(ctx context.Context, name string) error {
	if err := b.b.Delete(ctx, name); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

func (b *bucket) Close() error { return b.b.Close() }
