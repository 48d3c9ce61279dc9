package kafkatest

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Superuser is the name of the user who may do everything, if Options.Users has it.
const Superuser = "admin"

// secure are the further listeners of a broker with Users: one with TLS and SASL, and one
// with TLS on both sides. The plain one stays, for the broker itself and for superusers.
type secure struct {
	authority    *Authority
	sasl, mutual int // ports
}

// SecureAddr is the host:port of the listener that demands TLS and a password (PLAIN, SCRAM).
func (b *Broker) SecureAddr() string { return loopback(b.secure.sasl) }

// MutualAddr is the host:port of the listener that demands a client's certificate. The user
// is then User:CN=<name>.
func (b *Broker) MutualAddr() string { return loopback(b.secure.mutual) }

// Authority is who signed the broker's certificate, and signs those of clients.
func (b *Broker) Authority() *Authority { return b.secure.authority }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// secureSettings makes the certificates and adds the listeners, the users and, where asked
// for, the authorizer to the settings.
func (b *Broker) secureSettings(o Options, all map[string]string) error {
	var err error
	if b.secure.authority, err = NewAuthority(b.dir); err != nil {
		return err
	}
	for _, port := range []*int{&b.secure.sasl, &b.secure.mutual} {
		if *port, err = FreePort(); err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
	}
	cert, key, err := b.secure.authority.Issue("broker")
	if err != nil {
		return err
	}
	var store []byte // Kafka wants key and certificate in one file
	for _, file := range []string{key, cert} {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read a certificate: %w", err)
		}
		store = append(store, text...)
	}
	pair := filepath.Join(b.dir, "keystore.pem")
	if err := os.WriteFile(pair, store, 0o600); err != nil {
		return fmt.Errorf("write a certificate: %w", err)
	}
	more := fmt.Sprintf(",SASL_SSL://%s,SSL://%s", b.SecureAddr(), b.MutualAddr())
	all["listeners"] += more
	all["advertised.listeners"] += more
	all["listener.security.protocol.map"] += ",SASL_SSL:SASL_SSL,SSL:SSL"
	login := "org.apache.kafka.common.security.plain.PlainLoginModule required"
	for _, name := range slices.Sorted(maps.Keys(o.Users)) {
		login += fmt.Sprintf(" user_%s=%q", name, o.Users[name])
	}
	maps.Copy(all, map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": pair,
		"ssl.truststore.type": "PEM", "ssl.truststore.location": b.secure.authority.File(),
		"listener.name.ssl.ssl.client.auth":                     "required",
		"sasl.enabled.mechanisms":                               "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.sasl_ssl.plain.sasl.jaas.config":         login + ";",
		"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	})
	if o.Authorize {
		all["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		all["super.users"] = "User:ANONYMOUS;User:" + Superuser + ";User:CN=" + Superuser
	}
	return nil
}

// scram are the arguments of format that make the users known to SCRAM.
func scram(users map[string]string) (args []string) {
	for _, name := range slices.Sorted(maps.Keys(users)) {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, name, users[name]))
		}
	}
	return args
}
