package kafkatest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/kafkalog"
)

const password = "s3same-0pen"

// realOnly skips a test that starts brokers; only make it has the time.
func realOnly(t *testing.T) {
	t.Helper()
	if os.Getenv("KAFKA_BROKERS") == "" {
		t.Skip("KAFKA_BROKERS names no broker: only make it runs real ones")
	}
	if _, err := exec.LookPath("java"); err != nil {
		t.Skip("brokers from the jars need Java:", err)
	}
}

func startBroker(t *testing.T, o Options) *Broker {
	t.Helper()
	start := time.Now()
	b, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a broker in %v", time.Since(start))
	t.Cleanup(func() {
		start := time.Now()
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("stopped in %v", time.Since(start))
	})
	return b
}

// TestSecurity opens logs on a broker that demands TLS and a login: in all the ways that it
// takes, and in some that it must refuse, with an error that says why and holds no secret.
func TestSecurity(t *testing.T) {
	realOnly(t)
	b := startBroker(t, Options{Authorize: true, Users: map[string]string{Superuser: password, "nobody": password}})
	cert, key, err := b.Authority().Issue(Superuser)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	strangerCert, strangerKey, err := stranger.Issue(Superuser)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := "tls=true&ca=" + url.QueryEscape(b.Authority().File())
	mutual := ca + "&cert=" + url.QueryEscape(cert) + "&key=" + url.QueryEscape(key)
	for _, tt := range []struct{ name, user, addr, params, says string }{
		{"plain", "admin:" + password, b.SecureAddr(), ca + "&sasl=plain", ""},
		{"scram-sha-256", "admin:" + password, b.SecureAddr(), ca + "&sasl=scram-sha-256", ""},
		{"scram-sha-512", "admin:" + password, b.SecureAddr(), ca + "&sasl=scram-sha-512", ""},
		{"password file", "admin", b.SecureAddr(), ca + "&sasl=scram-sha-512&password-file=" + url.QueryEscape(file), ""},
		{"mutual tls", "", b.MutualAddr(), mutual, ""},

		{"wrong password, plain", "admin:wr0ng-w0rd", b.SecureAddr(), ca + "&sasl=plain", "the brokers refuse the login of user admin"},
		{"wrong password, scram-sha-256", "admin:wr0ng-w0rd", b.SecureAddr(), ca + "&sasl=scram-sha-256", "the brokers refuse the login of user admin"},
		{"wrong password, scram-sha-512", "admin:wr0ng-w0rd", b.SecureAddr(), ca + "&sasl=scram-sha-512", "the brokers refuse the login of user admin"},
		{"unknown user", "somebody:" + password, b.SecureAddr(), ca + "&sasl=scram-sha-512", "the brokers refuse the login of user somebody"},
		{"no login", "", b.SecureAddr(), ca, "needs a user and sasl="},
		{"no tls", "admin:" + password, b.SecureAddr(), "sasl=scram-sha-512", "set tls=true"},
		{"tls to a plain listener", "", b.Addr(), ca, "without tls=true"},
		{"unknown authority", "admin:" + password, b.SecureAddr(), "tls=true&sasl=scram-sha-512", "name its certificate with ca=FILE"},
		{"another authority", "admin:" + password, b.SecureAddr(), "tls=true&sasl=scram-sha-512&ca=" + url.QueryEscape(stranger.File()), "name its certificate with ca=FILE"},
		{"no client certificate", "", b.MutualAddr(), ca, "cert=FILE and key=FILE"},
		{"a stranger's client certificate", "", b.MutualAddr(), ca + "&cert=" + url.QueryEscape(strangerCert) + "&key=" + url.QueryEscape(strangerKey), "cert=FILE and key=FILE"},
		{"no permission", "nobody:" + password, b.SecureAddr(), ca + "&sasl=scram-sha-512", "the user needs Describe on the topics pizza.requests"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			raw := "kafka://" + tt.user + "@" + tt.addr + "/pizza?partitions=2&client-id=oven-7&" + tt.params
			if tt.user == "" {
				raw = strings.Replace(raw, "@", "", 1)
			}
			start := time.Now()
			l, err := eventlog.Open(ctx, raw)
			if err == nil {
				if err := use(ctx, l); err != nil {
					t.Error(err)
				}
				if strings.Contains(l.URL(), password) {
					t.Errorf("the password stands in the log's URL %s", l.URL())
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			switch {
			case tt.says == "" && err != nil:
				t.Error(err)
			case tt.says != "" && err == nil:
				t.Error("it was opened")
			case tt.says != "" && !strings.Contains(err.Error(), tt.says):
				t.Errorf("after %v: the error does not say %q: %v", time.Since(start), tt.says, err)
			}
			for _, secret := range []string{password, "wr0ng-w0rd"} {
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("a password stands in the error: %v", err)
				}
			}
		})
	}
	t.Run("client id", func(t *testing.T) { clientID(t, b) })
	t.Run("secrets change", func(t *testing.T) { secretsChange(t, b) })
}

// secretsChange opens a log with a tls.Config and a password from elsewhere, and goes on
// with it after both were renewed.
func secretsChange(t *testing.T, b *Broker) {
	pem, err := os.ReadFile(b.Authority().File())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	var current atomic.Pointer[string]
	set := func(s string) { current.Store(&s) }
	set(password)
	u := &url.URL{Scheme: "kafka", User: url.User(Superuser), Host: b.SecureAddr(), Path: "/renewed", RawQuery: "partitions=2&sasl=scram-sha-256"}
	l, err := kafkalog.OpenWith(t.Context(), u, kafkalog.Options{
		TLS:      &tls.Config{RootCAs: roots},
		Password: func(context.Context) (string, error) { return *current.Load(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := use(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{
		User: Superuser, Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "an0ther-0ne",
	}}); err != nil {
		t.Fatal(err)
	}
	if err := use(t.Context(), l); err == nil || !strings.Contains(err.Error(), "refuse the login of user "+Superuser) {
		t.Errorf("with the old password: %v", err)
	}
	set("an0ther-0ne")
	if err := use(t.Context(), l); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

// clientID looks at what the brokers know of a client.
func clientID(t *testing.T, b *Broker) {
	l, err := eventlog.Open(t.Context(), "kafka://"+b.Addr()+"/pizza?partitions=2&client-id=oven-7")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m, err := l.Join(t.Context(), "pizza.owners", eventlog.RequestsTopic("pizza"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Assigned(t.Context()); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).DescribeGroups(t.Context(), "pizza.owners")
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range groups["pizza.owners"].Members {
		if member.ClientID != "oven-7" {
			t.Errorf("the brokers know the client as %q", member.ClientID)
		}
	}
	if len(groups["pizza.owners"].Members) != 1 {
		t.Errorf("the group is %+v", groups["pizza.owners"])
	}
}

// use makes a transaction and reads it.
func use(ctx context.Context, l eventlog.Log) error {
	o, err := l.Own(ctx, 0)
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := o.Append(ctx, [][]byte{eventlog.Barrier}, []eventlog.Type{eventlog.BarrierType}, nil); err != nil {
		return err
	}
	if err := o.Commit(ctx); err != nil {
		return err
	}
	r, err := l.Read(ctx, eventlog.EventsTopic(l.App()), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		return err
	}
	defer r.Close()
	records, _, err := r.Next(ctx)
	if err == nil && len(records) == 0 {
		err = fmt.Errorf("nothing was read")
	}
	return err
}
