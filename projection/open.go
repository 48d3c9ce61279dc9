package projection

import (
	"context"
	"fmt"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// Identity is what a store must belong to.
type Identity struct {
	App        string
	Partitions int32
}

// Opener opens a store from a URL. It refuses unknown query parameters, and a store that
// another application wrote (ErrForeign).
type Opener func(ctx context.Context, u *url.URL, id Identity) (Store, error)

var (
	openersMu sync.RWMutex
	openers   = map[string]Opener{}
)

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) {
	openersMu.Lock()
	defer openersMu.Unlock()
	if _, taken := openers[scheme]; taken || open == nil {
		panic("projection: Register " + scheme + " twice or with nil")
	}
	openers[scheme] = open
}

// Schemes lists the schemes of the linked drivers.
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

var packageOf = map[string]string{
	"pebble": "backends/pebble", "redis": "backends/redis", "rediss": "backends/redis",
	"redis+sentinel": "backends/redis", "rediss+sentinel": "backends/redis",
	"redis+cluster": "backends/redis", "rediss+cluster": "backends/redis",
	"aerospike": "backends/aerospike", "mem": "projection/memstore",
}

// Open opens the store that a URL names. Secrets in the URL never appear in its errors.
func Open(ctx context.Context, rawURL string, id Identity) (Store, error) {
	scheme, _, found := strings.Cut(rawURL, ":")
	if !found {
		return nil, fmt.Errorf("open store: %w: the URL has no scheme; known: %s", ErrURL, strings.Join(Schemes(), ", "))
	}
	openersMu.RLock()
	open := openers[scheme]
	openersMu.RUnlock()
	if open == nil {
		hint := ""
		if p := packageOf[scheme]; p != "" {
			hint = fmt.Sprintf("; import _ %q", "github.com/godagger/dagger/"+p)
		}
		return nil, fmt.Errorf("open store: scheme %q is not linked%s; linked: %s", scheme, hint, strings.Join(Schemes(), ", "))
	}
	u, err := url.Parse(rawURL)
	if err != nil || hasUserBehindHost(rawURL) {
		return nil, fmt.Errorf("open store: %w: the %s URL can't be parsed; in a user or password, write @ : / ? # [ ] %% as %%40 %%3A %%2F %%3F %%23 %%5B %%5D %%25",
			ErrURL, scheme) // url.Parse quotes the whole URL, passwords included
	}
	s, err := open(ctx, u, id)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", u.Redacted(), err)
	}
	return s, nil
}

// hasUserBehindHost says whether there is an @ behind the host, where a password has one of the
// characters that end the host: its rest would be shown as a path.
func hasUserBehindHost(raw string) bool {
	_, rest, found := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if !found || end <= 0 {
		return false
	}
	rest, fragment, _ := strings.Cut(rest[end:], "#")
	path, query, _ := strings.Cut(rest, "?")
	name, _, _ := strings.Cut(query, "=")
	return strings.Contains(path+name+fragment, "@")
}
