package snapshot

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"sort"
	"strings"
	"sync"
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

var (
	openersMu sync.RWMutex
	openers   = map[string]Opener{"file": openDirURL}
)

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) {
	openersMu.Lock()
	defer openersMu.Unlock()
	if _, taken := openers[scheme]; taken || open == nil {
		panic("snapshot: Register " + scheme + " twice or with nil")
	}
	openers[scheme] = open
}

// Schemes lists the schemes that can be opened.
func Schemes() []string {
	openersMu.RLock()
	defer openersMu.RUnlock()
	var s []string
	for k := range openers {
		s = append(s, k)
	}
	sort.Strings(s)
	return s
}

// OpenBucket opens the bucket that a URL names: file:DIR, and what was registered. Secrets in
// the URL never appear in its errors.
func OpenBucket(ctx context.Context, rawURL string) (Bucket, error) {
	scheme, _, found := strings.Cut(rawURL, ":")
	if !found {
		return nil, fmt.Errorf("open bucket: the URL has no scheme; linked: %s", strings.Join(Schemes(), ", "))
	}
	openersMu.RLock()
	open := openers[scheme]
	openersMu.RUnlock()
	if open == nil {
		return nil, fmt.Errorf("open bucket: scheme %q is not linked; linked: %s; for s3, gs and azblob import "+
			"_ \"github.com/godagger/dagger/projection/snapshot/gocloud\" and the driver of gocloud.dev/blob", scheme, strings.Join(Schemes(), ", "))
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open bucket: the %s URL can't be parsed", scheme) // url.Parse quotes the whole URL
	}
	b, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", u.Redacted(), err)
	}
	return b, nil
}
