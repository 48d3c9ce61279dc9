package kafkalog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/godagger/dagger/eventlog"
)

// Options say what a URL does not, or should not. The zero value adds nothing.
type Options struct {
	// TLS is used instead of what tls, ca, cert and key would make.
	TLS *tls.Config
	// Password is asked for at every login of the user in the URL.
	Password func(context.Context) (string, error)
}

// OpenWith is Open with options. The log goes into workflow.Config.OpenedLog.
func OpenWith(ctx context.Context, u *url.URL, o Options) (eventlog.Log, error) {
	cfg, err := parseWith(u, o)
	if err != nil {
		return nil, err
	}
	return openConfig(ctx, cfg)
}

// parseTLS reads the authority at once. Certificate and key are read again at every
// connection, so that they may be renewed.
func (c *config) parseTLS(made *tls.Config, on bool, ca, cert, key string) error {
	if made != nil {
		if on || ca+cert+key != "" {
			return errors.New("tls, ca, cert and key are given beside Options.TLS")
		}
		c.tls = made.Clone()
		return nil
	}
	if !on {
		if ca+cert+key != "" {
			return errors.New("ca, cert and key need tls=true")
		}
		return nil
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("read ca: %w", err)
		}
		c.tls.RootCAs = x509.NewCertPool()
		if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("read ca: %s holds no PEM certificate", ca)
		}
	}
	if (cert == "") != (key == "") {
		return errors.New("cert and key go together")
	}
	if cert == "" {
		return nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("read cert and key: %w", err)
		}
		return &pair, nil
	}
	c.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	_, err := load()
	return err
}

// parseSASL takes the password from the URL, or reads it again at every login, so that it
// may be changed.
func (c *config) parseSASL(user *url.Userinfo, mechanism string, ask func(context.Context) (string, error), file string, plaintext bool) error {
	name, password := "", ""
	if user != nil {
		name = user.Username()
		password, _ = user.Password()
	}
	c.user = name
	if mechanism == "" {
		if user != nil || file != "" || ask != nil {
			return errors.New("a user or password-file needs sasl=plain, scram-sha-256 or scram-sha-512")
		}
		return nil
	}
	if file != "" && password != "" || ask != nil && file+password != "" {
		return errors.New("the password is given twice; it is one of the URL's, password-file and Options.Password")
	}
	switch {
	case file != "":
		read := func() (string, error) {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("read password-file: %w", err)
			}
			return strings.TrimRight(string(b), "\r\n"), nil
		}
		var err error
		if password, err = read(); err != nil {
			return err
		}
		ask = func(context.Context) (string, error) { return read() }
	case ask == nil:
		ask = func(context.Context) (string, error) { return password, nil }
	default:
		password = "asked for"
	}
	if name == "" || password == "" {
		return fmt.Errorf("sasl=%s needs a user in the URL and a password (password-file keeps it out of the URL)", mechanism)
	}
	login := func(ctx context.Context) (scram.Auth, error) {
		password, err := ask(ctx)
		return scram.Auth{User: name, Pass: password}, err
	}
	switch mechanism {
	case "plain":
		if c.tls == nil && !plaintext {
			return errors.New("sasl=plain without tls=true sends the password readable over the network; allow-plaintext=true allows it")
		}
		c.sasl = plain.Plain(func(ctx context.Context) (plain.Auth, error) {
			a, err := login(ctx)
			return plain.Auth{User: a.User, Pass: a.Pass}, err
		})
	case "scram-sha-256":
		c.sasl = scram.Sha256(login)
	case "scram-sha-512":
		c.sasl = scram.Sha512(login)
	default:
		return fmt.Errorf("unknown sasl mechanism %q; known: plain, scram-sha-256, scram-sha-512", mechanism)
	}
	return nil
}

// unreached adds to an error of connecting what to set in the URL.
func (c *config) unreached(err error) error {
	hint := func(text string) error { return fmt.Errorf("%s: %w", text, err) }
	var (
		authority x509.UnknownAuthorityError
		remote    *net.OpError
		eof       *kgo.ErrFirstReadEOF
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		const refused = "the brokers refuse the login of user "
		if strings.Contains(err.Error(), refused) {
			return err
		}
		return hint(refused + c.user)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return hint("the brokers do not know sasl=" + strings.ToLower(c.sasl.Name()))
	case errors.As(err, &authority):
		return hint("the brokers' certificate is signed by an authority that this machine does not trust; name its certificate with ca=FILE")
	case c.tls != nil && errors.As(err, &remote) && remote.Op == "remote error":
		return hint("the brokers want another certificate of this client; name it with cert=FILE and key=FILE")
	case c.tls == nil && strings.Contains(err.Error(), "tls alert"):
		return hint("the listener speaks TLS; set tls=true")
	case errors.As(err, &eof) && c.tls != nil && c.sasl == nil:
		return hint("the listener speaks no TLS (try it without tls=true), or needs a user and sasl=")
	case errors.As(err, &eof) && c.tls != nil:
		return hint("the listener speaks no TLS; try it without tls=true")
	case errors.As(err, &eof):
		return hint("the listener wants TLS (tls=true) or a login (a user and sasl=)")
	}
	return err
}

// denied adds to an error of authorization which right is missing, e.g. Read on topic x.
func denied(err error, operation, resource, name string) error {
	for _, e := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, e) {
			return fmt.Errorf("not allowed: the user needs %s on %s %s: %w", operation, resource, name, err)
		}
	}
	return err
}
