package eventlog

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strings"
	"sync"
)

// Opener opens a log from a URL. It refuses unknown query parameters. A URL that names
// several hosts, separated by commas, has them all in u.Host.
type Opener func(ctx context.Context, u *url.URL) (Log, error)

var (
	openersMu sync.RWMutex
	openers   = map[string]Opener{}
)

// Register makes a driver known under a URL scheme. It panics when the scheme is taken.
func Register(scheme string, open Opener) {
	openersMu.Lock()
	defer openersMu.Unlock()
	if _, taken := openers[scheme]; taken || open == nil {
		panic("eventlog: Register " + scheme + " twice or with nil")
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
	"file": "eventlog/embedlog", "mem": "eventlog/embedlog", "kafka": "eventlog/kafkalog",
}

// Open opens the log that a URL names. Secrets in the URL never appear in its errors.
func Open(ctx context.Context, rawURL string) (Log, error) {
	scheme, _, found := strings.Cut(rawURL, ":")
	if !found {
		return nil, fmt.Errorf("open log: %w: the URL has no scheme; known: %s", ErrURL, strings.Join(Schemes(), ", "))
	}
	openersMu.RLock()
	open := openers[scheme]
	openersMu.RUnlock()
	if open == nil {
		hint := ""
		if p := packageOf[scheme]; p != "" {
			hint = fmt.Sprintf("; import _ %q", "github.com/godagger/dagger/"+p)
		}
		return nil, fmt.Errorf("open log: scheme %q is not linked%s; linked: %s", scheme, hint, strings.Join(Schemes(), ", "))
	}
	u, err := parseURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open log: %w: the %s URL can't be parsed%s", ErrURL, scheme, encode) // url.Parse quotes the whole URL, passwords included
	}
	l, err := open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", u.Redacted(), err)
	}
	return l, nil
}

// encode is what to do where a URL can't be parsed.
const encode = "; in a user or password, write @ : / ? # [ ] % as %40 %3A %2F %3F %23 %5B %5D %25"

// errPassword: the user ends behind what should be the host.
var errPassword = errors.New("an @ behind the host")

// parseURL is url.Parse with several host:port pairs allowed, which url.Parse refuses. With an @
// behind the host it refuses a URL: there a password has one of the characters that end the
// host, and its rest would be shown as a path.
func parseURL(raw string) (*url.URL, error) {
	start := strings.Index(raw, "://")
	if start < 0 {
		return url.Parse(raw)
	}
	start += len("://")
	end := len(raw)
	if n := strings.IndexAny(raw[start:], "/?#"); n >= 0 {
		end = start + n
	}
	if start < end && hasUser(raw[end:]) {
		return nil, errPassword
	}
	start += strings.LastIndexByte(raw[start:end], '@') + 1
	hosts := strings.Split(raw[start:end], ",")
	var u *url.URL
	for _, host := range hosts {
		var err error
		if u, err = url.Parse(raw[:start] + host + raw[end:]); err != nil {
			return nil, err
		}
	}
	u.Host = strings.Join(hosts, ",")
	return u, nil
}

// hasUser says whether there is an @ in a path, in a fragment or before the first value of a query.
func hasUser(rest string) bool {
	rest, fragment, _ := strings.Cut(rest, "#")
	path, query, _ := strings.Cut(rest, "?")
	name, _, _ := strings.Cut(query, "=")
	return strings.Contains(path+name+fragment, "@")
}
