package projection

import (
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
)

// Parameters reads the query parameters of a store's URL for its driver. After the first mistake all
// further values are empty, and Err returns the mistake. No error contains a secret.
type Parameters struct {
	values url.Values
	err    error
}

// ParseParameters reads the parameters of a URL. Parameters that are not known, or empty, are
// mistakes.
func ParseParameters(u *url.URL, known ...string) *Parameters {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return &Parameters{err: errors.New("the parameters can't be parsed")}
	}
	p := &Parameters{values: values}
	for name, list := range values {
		if !slices.Contains(known, name) {
			p.refuse("unknown parameter %q; known: %s", name, strings.Join(known, ", "))
		} else if slices.Contains(list, "") {
			p.refuse("parameter %s is empty", name)
		}
	}
	return p
}

func (p *Parameters) refuse(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// Err returns the first mistake, or nil.
func (p *Parameters) Err() error { return p.err }

// All returns the values of a parameter that may be repeated.
func (p *Parameters) All(name string) []string {
	if p.err != nil {
		return nil
	}
	return p.values[name]
}

// Text returns the value of a parameter; "" if it is not given.
func (p *Parameters) Text(name string) string {
	list := p.All(name)
	if len(list) > 1 {
		p.refuse("parameter %s is given %d times", name, len(list))
	}
	if len(list) != 1 {
		return ""
	}
	return list[0]
}

// OneOf returns the value of a parameter, which must be one of values; "" if it is not given.
func (p *Parameters) OneOf(name string, values ...string) string {
	s := p.Text(name)
	if s != "" && !slices.Contains(values, s) {
		p.refuse("%s is %s", name, strings.Join(values, " or "))
		return ""
	}
	return s
}

// Number returns a number from least to most; 0 if it is not given.
func (p *Parameters) Number(name string, least, most int) int {
	s := p.Text(name)
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		p.refuse("%s=%q is not a number from %d to %d", name, s, least, most)
		return 0
	}
	return n
}

// Duration returns a duration above 0; 0 if it is not given.
func (p *Parameters) Duration(name string) time.Duration {
	s := p.Text(name)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		p.refuse("%s=%q is no duration such as 5s", name, s)
		return 0
	}
	return d
}

// Secret returns the contents, without the end of the line, of the file that a parameter names; ""
// if it is not given.
func (p *Parameters) Secret(name string) string {
	file := p.Text(name)
	if file == "" {
		return ""
	}
	data, err := os.ReadFile(file)
	if err != nil {
		p.refuse("%s: %w", name, err)
	}
	return strings.TrimRight(string(data), "\r\n")
}

// Certificates adds the PEM files that the parameters ca, cert and key name to a TLS configuration,
// and says whether one of them is given.
func (p *Parameters) Certificates(c *tls.Config) (given bool) {
	ca, cert, key := p.Text("ca"), p.Text("cert"), p.Text("key")
	if ca+cert+key == "" || c == nil {
		return ca+cert+key != ""
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			p.refuse("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			p.refuse("ca: no certificate in %s", ca)
		}
	}
	if (cert == "") != (key == "") {
		p.refuse("cert and key go together")
	}
	if cert != "" && key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			p.refuse("cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return true
}

// Login returns the user and the password of a URL; the password may be in the file that the
// parameter password_file names. A user without a password is a mistake: it may be a password in
// the wrong place.
func (p *Parameters) Login(u *url.URL) (user, password string) {
	if u.User != nil {
		user = u.User.Username()
		var has bool
		if password, has = u.User.Password(); !has {
			p.refuse("write user:password@, :password@, or user:@ beside password_file=; a user alone would be taken for the password elsewhere")
		}
	}
	if secret := p.Secret("password_file"); secret != "" {
		if password != "" {
			p.refuse("there is a password in the URL and a password_file")
		}
		password = secret
	}
	return user, password
}

// Addresses returns the host:port pairs of a URL's host and of more, with the default port where one
// has none.
func (p *Parameters) Addresses(u *url.URL, port string, more ...string) (list []string) {
	if u.Host != "" {
		more = append(strings.Split(u.Host, ","), more...)
	}
	for _, addr := range more {
		if strings.Count(addr, ":") > 1 && !strings.Contains(addr, "[") {
			p.refuse("%q: an IPv6 address is written in brackets, as in [::1]:%s", addr, port)
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			p.refuse("%q is no host:port", addr)
		}
		list = append(list, addr)
	}
	return list
}

// ConcealURL takes out of a URL that is refused what may be a secret in a wrong place: Open shows
// the URL beside the error, and knows only of passwords behind a user's name.
func ConcealURL(u *url.URL, known ...string) {
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
		if !slices.Contains(known, name) {
			query[name] = []string{"xxxxx"}
		}
	}
	u.RawQuery = query.Encode()
}
