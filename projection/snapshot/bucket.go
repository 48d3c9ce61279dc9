package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/godagger/dagger/internal/driver"
)

// Bucket keeps objects by name. Names are slash-separated and hold letters, digits and
// "-_.". All methods may be called concurrently. Cancelling a context ends a call.
type Bucket interface {
	// URL is how the bucket was opened, without secrets.
	URL() string
	// Put stores what r gives under a name, whole or not at all; an object of that name is
	// replaced. When it returns nil, the object is durable.
	Put(ctx context.Context, name string, r io.Reader) error
	// Get reads an object; fs.ErrNotExist where there is none.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// List names the objects whose names begin with prefix, sorted.
	List(ctx context.Context, prefix string) ([]string, error)
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
	Close() error
}

// Opener opens a bucket from a URL. It refuses unknown parameters.
type Opener func(ctx context.Context, u *url.URL) (Bucket, error)

// ErrURL: the URL of a bucket can't be understood; nothing was opened.
var ErrURL = errors.New("snapshot: wrong URL")

const cloud = `_ "github.com/godagger/dagger/projection/snapshot/gocloud" and the driver of gocloud.dev/blob`

var openers = driver.NewRegistry[Opener]("snapshot.Register", ErrURL, map[string]string{"s3": cloud, "gs": cloud, "azblob": cloud})

func init() { Register("file", openDirURL) }

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) { openers.Register(scheme, open) }

// Schemes lists the schemes that can be opened, sorted.
func Schemes() []string { return openers.Schemes() }

// OpenBucket opens the bucket that a URL names: file:DIR, and what was registered. ErrURL when
// the URL can't be understood. Secrets in the URL never appear in its errors.
func OpenBucket(ctx context.Context, rawURL string) (Bucket, error) {
	open, u, err := openers.Find(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	b, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", u.Redacted(), err)
	}
	return b, nil
}
