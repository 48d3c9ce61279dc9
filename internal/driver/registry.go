// Package driver has what the URLs of logs, stores and buckets share: which driver opens a
// scheme, and how a URL is parsed without any error that shows a password.
package driver

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Registry knows drivers by the URL scheme under which they registered. T is the function that
// a driver registers. A Registry may be used by several goroutines.
type Registry[T any] struct {
	name    string
	errURL  error
	imports map[string]string

	mu      sync.RWMutex
	drivers map[string]T
}

// NewRegistry makes a registry. name is the function by which drivers register, for the panic
// about a mistake; errURL is what the error wraps about a URL that can't be understood; imports
// says by scheme what a program imports to link its driver.
func NewRegistry[T any](name string, errURL error, imports map[string]string) *Registry[T] {
	return &Registry[T]{name: name, errURL: errURL, imports: imports, drivers: map[string]T{}}
}

// Register makes a driver known. It panics when the scheme is taken, or the function is nil.
func (r *Registry[T]) Register(scheme string, driver T) {
	if v := reflect.ValueOf(driver); v.Kind() == reflect.Func && v.IsNil() {
		panic(r.name + ": the function for the scheme " + scheme + " is nil")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.drivers[scheme]; taken {
		panic(r.name + ": the scheme " + scheme + " is taken")
	}
	r.drivers[scheme] = driver
}

// Schemes lists the schemes that are registered, sorted.
func (r *Registry[T]) Schemes() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.drivers))
}

// Get is the driver of a scheme; ok is false where none has registered.
func (r *Registry[T]) Get(scheme string) (driver T, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	driver, ok = r.drivers[scheme]
	return driver, ok
}

// Find is the driver for a URL, and the URL parsed. The error says what to import where the
// driver is not linked, and shows no password.
func (r *Registry[T]) Find(raw string) (driver T, u *url.URL, err error) {
	scheme, _, found := strings.Cut(raw, ":")
	if !found {
		return driver, nil, fmt.Errorf("%w: the URL has no scheme; linked: %s", r.errURL, strings.Join(r.Schemes(), ", "))
	}
	driver, ok := r.Get(scheme)
	if !ok {
		hint := ""
		if i := r.imports[scheme]; i != "" {
			hint = "; import " + i
		}
		return driver, nil, fmt.Errorf("scheme %q is not linked%s; linked: %s", scheme, hint, strings.Join(r.Schemes(), ", "))
	}
	u, err = r.Parse(raw)
	return driver, u, err
}

// Parse is ParseURL with the registry's error.
func (r *Registry[T]) Parse(raw string) (*url.URL, error) {
	u, err := ParseURL(raw)
	if err != nil { // not shown: url.Parse quotes the whole URL, passwords included
		scheme, _, _ := strings.Cut(raw, ":")
		return nil, fmt.Errorf("%w: the %s URL can't be parsed; in a user or password, write @ : / ? # [ ] %% as %%40 %%3A %%2F %%3F %%23 %%5B %%5D %%25", r.errURL, scheme)
	}
	return u, nil
}

// errBehindHost: a user or password ends behind what should be the host.
var errBehindHost = errors.New("an @ behind the host")

// ParseURL is url.Parse that takes several host:port pairs, separated by commas, and leaves them
// all in Host. It refuses a URL with an @ behind the host: a password must have had one of the
// characters that end a host, and the rest of it would be shown as a path. Its error may show
// a password.
func ParseURL(raw string) (*url.URL, error) {
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
		return nil, errBehindHost
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
