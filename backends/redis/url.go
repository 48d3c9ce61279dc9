package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/godagger/dagger/projection"
)

// modes are the schemes; an s behind redis is TLS.
var modes = map[string]Mode{"redis": Single, "redis+sentinel": Sentinel, "redis+cluster": Cluster}

func init() {
	for scheme := range modes {
		projection.Register(scheme, openURL)
		projection.Register(strings.Replace(scheme, "redis", "rediss", 1), openURL)
	}
}

func openURL(ctx context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
	o, err := parseURL(u)
	if err != nil {
		projection.ConcealURL(u, parameters...)
		return nil, fmt.Errorf("%w: %w", projection.ErrURL, err)
	}
	return Open(ctx, o, id)
}

// parameters are those of a URL.
var parameters = []string{
	"prefix", "buckets", "timeout", "addr", "master", "ca", "cert", "key", "password_file", "sentinel_user", "sentinel_password_file", "check",
}

func parseURL(u *url.URL) (o Options, err error) {
	plainScheme := u.Scheme
	if rest, secure := strings.CutPrefix(u.Scheme, "rediss"); secure {
		plainScheme = "redis" + rest
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	mode, known := modes[plainScheme]
	if !known || u.Opaque != "" || u.Fragment != "" {
		return o, errors.New("redis: the URL is redis://user:password@host:6379/0, or with redis+sentinel, redis+cluster, or rediss instead of redis")
	}
	port := "6379"
	if o.Mode = mode; mode == Sentinel {
		port = "26379"
	}
	p := projection.ParseParameters(u, parameters...)
	o.Username, o.Password = p.Login(u)
	o.Addrs = p.Addresses(u, port, p.All("addr")...)
	o.Prefix, o.Master = p.Text("prefix"), p.Text("master")
	o.Buckets, o.Timeout = p.Number("buckets", 1, maxBuckets), p.Duration("timeout")
	o.SentinelUsername, o.SentinelPassword = p.Text("sentinel_user"), p.Secret("sentinel_password_file")
	o.NoCheck = p.OneOf("check", "on", "off") == "off"
	certificates := p.Certificates(o.TLS)
	if p.Err() != nil {
		return o, fmt.Errorf("redis: %w", p.Err())
	}
	if certificates && o.TLS == nil {
		return o, errors.New("redis: ca, cert and key need rediss")
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		if o.DB, err = strconv.Atoi(path); err != nil || o.DB < 0 {
			return o, fmt.Errorf("redis: %q is no number of a database", path)
		}
	}
	return o, o.validate()
}

// validate reports options that don't go together.
func (o *Options) validate() error {
	var mistakes []error
	mistake := func(bad bool, what string) {
		if bad {
			mistakes = append(mistakes, errors.New("redis: "+what))
		}
	}
	mistake(len(o.Addrs) == 0, "no server is named")
	mistake(o.Mode == Single && len(o.Addrs) > 1, "several servers need redis+sentinel or redis+cluster")
	mistake(o.Mode == Sentinel && o.Master == "", "redis+sentinel needs master=NAME")
	mistake(o.Mode != Sentinel && o.Master+o.SentinelUsername+o.SentinelPassword != "", "master and sentinel_… need redis+sentinel")
	mistake(o.Mode == Cluster && o.DB != 0, "a cluster has database 0 only")
	mistake(strings.ContainsAny(o.Prefix, "{}"), "the prefix may have no braces")
	mistake(o.Buckets < 0 || o.Buckets > maxBuckets, fmt.Sprintf("buckets is a number from 1 to %d", maxBuckets))
	return errors.Join(mistakes...)
}

// url is the URL without secrets.
func (o *Options) url() string {
	u := url.URL{Scheme: "redis", Host: strings.Join(o.Addrs, ",")}
	if o.TLS != nil {
		u.Scheme = "rediss"
	}
	switch o.Mode {
	case Sentinel:
		u.Scheme += "+sentinel"
	case Cluster:
		u.Scheme += "+cluster"
	}
	if o.Username != "" {
		u.User = url.User(o.Username)
	}
	if o.Mode != Cluster {
		u.Path = "/" + strconv.Itoa(o.DB)
	}
	query := url.Values{}
	if o.Master != "" {
		query.Set("master", o.Master)
	}
	if o.Prefix != defaultPrefix {
		query.Set("prefix", o.Prefix)
	}
	u.RawQuery = query.Encode()
	return u.String()
}
