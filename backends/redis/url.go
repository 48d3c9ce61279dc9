package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

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
		hide(u)
		return nil, fmt.Errorf("%w: %w", projection.ErrURL, err)
	}
	return Open(ctx, o, id)
}

// parameters are those of a URL.
var parameters = []string{
	"prefix", "buckets", "timeout", "addr", "master", "ca", "cert", "key", "password_file", "sentinel_user", "sentinel_password_file", "check",
}

// hide takes out of a URL that is refused what may be a secret in a wrong place: the caller shows
// the URL beside the error, and knows only of passwords behind a user's name.
func hide(u *url.URL) {
	if u.User != nil {
		if _, has := u.User.Password(); !has {
			u.User = url.User("xxxxx")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		u.RawQuery = "xxxxx"
		return
	}
	for name := range query {
		if !slices.Contains(parameters, name) {
			query[name] = []string{"xxxxx"}
		}
	}
	u.RawQuery = query.Encode()
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
	o.Mode = mode
	if u.User != nil {
		o.Username = u.User.Username()
		var has bool
		if o.Password, has = u.User.Password(); !has {
			return o, errors.New("redis: write user:password@ or :password@; a user alone would be taken for the password elsewhere")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errors.New("redis: the parameters can't be parsed")
	}
	if err := o.parameters(query); err != nil {
		return o, err
	}
	if err := o.addresses(u.Host, query["addr"]); err != nil {
		return o, err
	}
	if path := strings.TrimPrefix(u.Path, "/"); path != "" {
		if o.DB, err = strconv.Atoi(path); err != nil || o.DB < 0 {
			return o, fmt.Errorf("redis: %q is no number of a database", path)
		}
	}
	return o, o.validate()
}

func (o *Options) parameters(query url.Values) (err error) {
	var ca, cert, key string
	for name, values := range query {
		if len(values) != 1 && name != "addr" {
			return fmt.Errorf("redis: parameter %s is given %d times", name, len(values))
		}
		value := values[0]
		if value == "" {
			return fmt.Errorf("redis: parameter %s is empty", name)
		}
		switch name {
		case "prefix":
			o.Prefix = value
		case "buckets":
			if o.Buckets, err = strconv.Atoi(value); err != nil || o.Buckets < 1 {
				return fmt.Errorf("redis: buckets=%q is not a number from 1 to %d", value, maxBuckets)
			}
		case "timeout":
			if o.Timeout, err = time.ParseDuration(value); err != nil || o.Timeout <= 0 {
				return fmt.Errorf("redis: timeout=%q is no duration such as 10s", value)
			}
		case "addr":
		case "master":
			o.Master = value
		case "ca":
			ca = value
		case "cert":
			cert = value
		case "key":
			key = value
		case "password_file":
			if o.Password != "" {
				return errors.New("redis: there is a password in the URL and a password_file")
			}
			o.Password, err = readSecret(name, value)
		case "sentinel_user":
			o.SentinelUsername = value
		case "sentinel_password_file":
			o.SentinelPassword, err = readSecret(name, value)
		case "check":
			if value != "on" && value != "off" {
				return errors.New("redis: check is on or off")
			}
			o.NoCheck = value == "off"
		default:
			return fmt.Errorf("redis: unknown parameter %q; known: %s", name, strings.Join(parameters, ", "))
		}
		if err != nil {
			return err
		}
	}
	return o.certificates(ca, cert, key)
}

func readSecret(name, file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("redis: %s: %w", name, err)
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

func (o *Options) certificates(ca, cert, key string) error {
	if ca+cert+key == "" {
		return nil
	}
	if o.TLS == nil {
		return errors.New("redis: ca, cert and key need rediss")
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("redis: ca: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("redis: ca: no certificate in %s", ca)
		}
	}
	if (cert == "") != (key == "") {
		return errors.New("redis: cert and key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("redis: cert and key: %w", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// addresses reads host:port,host:port and the addr parameters.
func (o *Options) addresses(hosts string, more []string) error {
	port := "6379"
	if o.Mode == Sentinel {
		port = "26379"
	}
	list := more
	if hosts != "" {
		list = append(strings.Split(hosts, ","), more...)
	}
	for _, addr := range list {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
		if host, p, err := net.SplitHostPort(addr); err != nil || host == "" || p == "" {
			return fmt.Errorf("redis: %q is no host:port", addr)
		}
		o.Addrs = append(o.Addrs, addr)
	}
	return nil
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
