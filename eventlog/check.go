package eventlog

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/godagger/dagger/internal/driver"
)

// Level says how bad a Finding is.
type Level string

const (
	LevelOK      Level = "ok"
	LevelUnknown Level = "unknown" // it could not be looked at
	LevelSlow    Level = "slow"    // it costs time, or soon will
	LevelRisk    Level = "risk"    // one more failure, or a mistake, would lose data
	LevelWrong   Level = "wrong"   // it does not work, or loses data
)

// Bad tells whether something is wrong or would lose data.
func (l Level) Bad() bool { return l == LevelRisk || l == LevelWrong }

// Finding is one thing that was looked at.
type Finding struct {
	Level   Level  `json:"level"`
	Subject string `json:"subject"`      // what was looked at
	Text    string `json:"text"`         // how it is
	Do      string `json:"do,omitempty"` // what to do about it; "" = nothing
}

// Checker looks at the log that a URL names without changing it; at what belongs to no log
// yet, too. Its error says that the log can't be reached.
type Checker func(ctx context.Context, u *url.URL) ([]Finding, error)

var checkers = driver.NewRegistry[Checker]("eventlog.RegisterChecker", ErrURL, nil)

// RegisterChecker makes a driver's checker known under a URL scheme. It panics when the
// scheme is taken.
func RegisterChecker(scheme string, check Checker) { checkers.Register(scheme, check) }

// Check looks at the log that a URL names: what is wrong with it, what is slow and what
// would lose data. A driver that has no checker finds nothing. Secrets in the URL never
// appear in errors and findings.
func Check(ctx context.Context, rawURL string) ([]Finding, error) {
	scheme, _, _ := strings.Cut(rawURL, ":")
	check, ok := checkers.Get(scheme)
	if !ok {
		return nil, nil
	}
	u, err := checkers.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("check log: %w", err)
	}
	found, err := check(ctx, u)
	if err != nil {
		return found, fmt.Errorf("check log %s: %w", u.Redacted(), err)
	}
	return found, nil
}

// Redacted is a URL without its password, to be shown.
func Redacted(rawURL string) string {
	if u, err := driver.ParseURL(rawURL); err == nil {
		return u.Redacted()
	}
	scheme, _, _ := strings.Cut(rawURL, ":")
	return scheme + ":…"
}
