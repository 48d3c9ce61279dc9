package aerospike

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
	"strings"
	"time"

	"github.com/godagger/dagger/projection"
)

const scheme = "aerospike"

func init() { projection.Register(scheme, openURL) }

func openURL(ctx context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
	o, err := parseURL(u)
	if err != nil {
		hide(u)
		return nil, fmt.Errorf("%w: %w", projection.ErrURL, err)
	}
	return Open(ctx, o, id)
}

// parameters are those of a URL.
var parameters = []string{"set", "timeout", "tls", "tls_name", "ca", "cert", "key", "password_file", "auth", "check"}

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
	if u.Scheme != scheme || u.Opaque != "" || u.Fragment != "" {
		return o, errors.New("aerospike: the URL is aerospike://user:password@host:3000,host2:3000/namespace?set=dagger")
	}
	if u.User != nil {
		o.Username = u.User.Username()
		var has bool
		if o.Password, has = u.User.Password(); !has {
			return o, errors.New("aerospike: write user:password@, or password_file= beside user:@")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errors.New("aerospike: the parameters can't be parsed")
	}
	if err := o.parameters(query); err != nil {
		return o, err
	}
	if u.Host != "" {
		if err := o.addresses(strings.Split(u.Host, ",")); err != nil {
			return o, err
		}
	}
	o.Namespace = strings.Trim(u.Path, "/")
	return o, o.validate()
}

func (o *Options) parameters(query url.Values) (err error) {
	var ca, cert, key string
	for name, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("aerospike: parameter %s is given %d times", name, len(values))
		}
		value := values[0]
		if value == "" {
			return fmt.Errorf("aerospike: parameter %s is empty", name)
		}
		switch name {
		case "set":
			o.Set = value
		case "timeout":
			if o.Timeout, err = time.ParseDuration(value); err != nil || o.Timeout <= 0 {
				return fmt.Errorf("aerospike: timeout=%q is no duration such as 5s", value)
			}
		case "tls", "check":
			if value != "on" && value != "off" {
				return fmt.Errorf("aerospike: %s is on or off", name)
			}
			if name == "check" {
				o.NoCheck = value == "off"
			} else if value == "on" {
				o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			}
		case "tls_name":
			o.TLSName = value
		case "ca":
			ca = value
		case "cert":
			cert = value
		case "key":
			key = value
		case "password_file":
			if o.Password != "" {
				return errors.New("aerospike: there is a password in the URL and a password_file")
			}
			raw, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("aerospike: password_file: %w", err)
			}
			o.Password = strings.TrimRight(string(raw), "\r\n")
		case "auth":
			if value != "internal" && value != "external" {
				return errors.New("aerospike: auth is internal or external")
			}
			o.External = value == "external"
		default:
			return fmt.Errorf("aerospike: unknown parameter %q; known: %s", name, strings.Join(parameters, ", "))
		}
	}
	return o.certificates(ca, cert, key)
}

func (o *Options) certificates(ca, cert, key string) error {
	if ca+cert+key+o.TLSName == "" {
		return nil
	}
	if o.TLS == nil {
		return errors.New("aerospike: tls_name, ca, cert and key need tls=on")
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("aerospike: ca: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("aerospike: ca: no certificate in %s", ca)
		}
	}
	if (cert == "") != (key == "") {
		return errors.New("aerospike: cert and key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("aerospike: cert and key: %w", err)
		}
		o.TLS.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func (o *Options) addresses(list []string) error {
	for _, addr := range list {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), "3000")
		}
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return fmt.Errorf("aerospike: %q is no host:port", addr)
		}
		o.Addrs = append(o.Addrs, addr)
	}
	return nil
}

// complete fills in what may be left out, and reports what is wrong.
func (o *Options) complete() error {
	if o.Set == "" {
		o.Set = defaultSet
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return o.validate()
}

// maxName is how long a set's or a namespace's name may be.
const maxName = 63

// validate reports options that don't go together.
func (o *Options) validate() error {
	var mistakes []error
	mistake := func(bad bool, what string) {
		if bad {
			mistakes = append(mistakes, errors.New("aerospike: "+what))
		}
	}
	mistake(len(o.Addrs) == 0, "no server is named")
	mistake(o.Namespace == "", "the namespace is missing: aerospike://host:3000/NAMESPACE")
	mistake(o.Namespace != "" && !isName(o.Namespace), "the namespace's name may have letters, digits, dot, underscore and hyphen")
	mistake(o.Set != "" && !isName(o.Set), fmt.Sprintf("the set's name may have up to %d letters, digits, dots, underscores and hyphens", maxName))
	mistake(o.Username == "" && o.Password != "", "there is a password and no user")
	mistake(o.External && o.TLS == nil, "auth=external would send the password readably; it needs tls=on")
	return errors.Join(mistakes...)
}

// isName says whether a name means nothing else to a server's info commands.
func isName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// url is the URL without secrets.
func (o *Options) url() string {
	u := url.URL{Scheme: scheme, Host: strings.Join(o.Addrs, ","), Path: "/" + o.Namespace}
	if o.Username != "" {
		u.User = url.User(o.Username)
	}
	query := url.Values{}
	if o.Set != "" && o.Set != defaultSet {
		query.Set("set", o.Set)
	}
	if o.TLS != nil {
		query.Set("tls", "on")
	}
	u.RawQuery = query.Encode()
	return u.String()
}
