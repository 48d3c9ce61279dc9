package projection

import (
	"context"
	"fmt"
	"net/url"

	"github.com/godagger/dagger/internal/driver"
)

// Identity is what a store must belong to: an application, and its fixed count of partitions.
type Identity struct {
	App        string
	Partitions int32
}

// Opener opens a store from a URL. It refuses unknown query parameters, and a store that
// another application wrote (ErrForeign). A URL that names several hosts, separated by commas,
// has them all in u.Host.
type Opener func(ctx context.Context, u *url.URL, id Identity) (Store, error)

var openers = driver.NewRegistry[Opener]("projection.Register", ErrURL, map[string]string{
	"pebble":          `_ "github.com/godagger/dagger/backends/pebble"`,
	"redis":           `_ "github.com/godagger/dagger/backends/redis"`,
	"rediss":          `_ "github.com/godagger/dagger/backends/redis"`,
	"redis+sentinel":  `_ "github.com/godagger/dagger/backends/redis"`,
	"rediss+sentinel": `_ "github.com/godagger/dagger/backends/redis"`,
	"redis+cluster":   `_ "github.com/godagger/dagger/backends/redis"`,
	"rediss+cluster":  `_ "github.com/godagger/dagger/backends/redis"`,
	"aerospike":       `_ "github.com/godagger/dagger/backends/aerospike"`,
	"mem":             `_ "github.com/godagger/dagger/projection/memstore"`,
})

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) { openers.Register(scheme, open) }

// Schemes lists the schemes of the linked drivers, sorted.
func Schemes() []string { return openers.Schemes() }

// Open opens the store that a URL names, for the application id. ErrURL when the URL can't be
// understood. Secrets in the URL never appear in its errors.
func Open(ctx context.Context, rawURL string, id Identity) (Store, error) {
	open, u, err := openers.Find(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s, err := open(ctx, u, id)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", u.Redacted(), err)
	}
	return s, nil
}
