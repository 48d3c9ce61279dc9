package kafkalog

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

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
		return hint("the brokers refuse the login of user " + c.user)
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
