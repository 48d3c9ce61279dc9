package eventlog

import (
	"context"
	"fmt"
	"net/url"

	"github.com/godagger/dagger/internal/driver"
)

// Opener opens a log from a URL. It refuses unknown query parameters. A URL that names
// several hosts, separated by commas, has them all in u.Host.
type Opener func(ctx context.Context, u *url.URL) (Log, error)

var openers = driver.NewRegistry[Opener]("eventlog.Register", ErrURL, map[string]string{
	"file":  `_ "github.com/godagger/dagger/eventlog/embedlog"`,
	"mem":   `_ "github.com/godagger/dagger/eventlog/embedlog"`,
	"kafka": `_ "github.com/godagger/dagger/eventlog/kafkalog"`,
})

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) { openers.Register(scheme, open) }

// Schemes lists the schemes of the linked drivers, sorted.
func Schemes() []string { return openers.Schemes() }

// Open opens the log that a URL names. ErrURL when the URL can't be understood. Secrets in the
// URL never appear in its errors.
func Open(ctx context.Context, rawURL string) (Log, error) {
	open, u, err := openers.Find(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", u.Redacted(), err)
	}
	return l, nil
}
