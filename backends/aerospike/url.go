package aerospike

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/godagger/dagger/projection"
)

const scheme = "aerospike"

func init() { projection.Register(scheme, openURL) }

func openURL(ctx context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
	o, err := parseURL(u)
	if err != nil {
		projection.ConcealURL(u, parameters...)
		return nil, fmt.Errorf("%w: %w", projection.ErrURL, err)
	}
	return Open(ctx, o, id)
}

// parameters are those of a URL.
var parameters = []string{"set", "timeout", "tls", "tls_name", "ca", "cert", "key", "password_file", "auth", "check"}

func parseURL(u *url.URL) (o Options, err error) {
	if u.Scheme != scheme || u.Opaque != "" || u.Fragment != "" {
		return o, errors.New("aerospike: the URL is aerospike://user:password@host:3000,host2:3000/namespace?set=dagger")
	}
	p := projection.ParseParameters(u, parameters...)
	o.Username, o.Password = p.Login(u)
	o.Addrs = p.Addresses(u, "3000")
	o.Set, o.Timeout, o.TLSName = p.Text("set"), p.Duration("timeout"), p.Text("tls_name")
	o.External = p.OneOf("auth", "internal", "external") == "external"
	o.NoCheck = p.OneOf("check", "on", "off") == "off"
	if p.OneOf("tls", "on", "off") == "on" {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	certificates := p.Certificates(o.TLS)
	if p.Err() != nil {
		return o, fmt.Errorf("aerospike: %w", p.Err())
	}
	if o.TLS == nil && (certificates || o.TLSName != "") {
		return o, errors.New("aerospike: tls_name, ca, cert and key need tls=on")
	}
	o.Namespace = strings.Trim(u.Path, "/")
	return o, o.validate()
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
