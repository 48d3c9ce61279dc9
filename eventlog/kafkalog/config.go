package kafkalog

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/godagger/dagger/eventlog"
)

// config is what a URL says.
type config struct {
	app         string
	url         string // without the password
	seeds       []string
	partitions  int32
	replication int16 // 0 = min(3, brokers)
	clientID    string
	user        string
	tls         *tls.Config
	sasl        sasl.Mechanism
}

// appNames are those that make legal topic names.
var appNames = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

var parameters = []string{
	"partitions", "replication", "client-id", "tls", "ca", "cert", "key",
	"sasl", "password-file", "allow-plaintext",
}

// parse reads a URL. Its errors never hold the password.
func parse(u *url.URL) (config, error) {
	c := config{partitions: eventlog.DefaultPartitions, clientID: "dagger"}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if c.app = strings.TrimPrefix(u.Path, "/"); !appNames.MatchString(c.app) {
		fail("the path must be the application's name, of letters, digits, '.', '_' and '-', at most 200 (kafka://host:9092/app)")
	}
	for host := range strings.SplitSeq(u.Host, ",") {
		if seed, ok := hostPort(host); ok {
			c.seeds = append(c.seeds, seed)
		} else {
			fail("%q is not host:port", host)
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		fail("the parameters can't be parsed")
	}
	for name, values := range q {
		if !slices.Contains(parameters, name) {
			fail("unknown parameter %q; known: %s", name, strings.Join(parameters, ", "))
		} else if len(values) > 1 {
			fail("parameter %s is given twice", name)
		}
	}
	number := func(name string, most int, set func(int)) {
		if s := q.Get(name); s != "" {
			if n, err := strconv.Atoi(s); err == nil && n >= 1 && n <= most {
				set(n)
			} else {
				fail("%s must be a number from 1 to %d", name, most)
			}
		}
	}
	flag := func(name string) bool {
		s := q.Get(name)
		b, err := strconv.ParseBool(s)
		if s != "" && err != nil {
			fail("%s must be true or false", name)
		}
		return b
	}
	number("partitions", 10000, func(n int) { c.partitions = int32(n) })
	number("replication", 100, func(n int) { c.replication = int16(n) })
	if s := q.Get("client-id"); s != "" {
		c.clientID = s
	}
	if err := c.parseTLS(flag("tls"), q.Get("ca"), q.Get("cert"), q.Get("key")); err != nil {
		errs = append(errs, err)
	}
	if err := c.parseSASL(u.User, q.Get("sasl"), q.Get("password-file"), flag("allow-plaintext")); err != nil {
		errs = append(errs, err)
	}
	clean := *u
	if u.User != nil {
		clean.User = url.User(u.User.Username())
	}
	c.url = clean.String()
	return c, errors.Join(errs...)
}

func hostPort(s string) (string, bool) {
	if s == "" {
		return "", false
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "9092"
	}
	if n, err := strconv.Atoi(port); host == "" || err != nil || n < 1 || n > 65535 {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}

func (c *config) parseTLS(on bool, ca, cert, key string) error {
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
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("read cert and key: %w", err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

func (c *config) parseSASL(user *url.Userinfo, mechanism, file string, plaintext bool) error {
	name, password := "", ""
	if user != nil {
		name = user.Username()
		password, _ = user.Password()
	}
	if mechanism == "" {
		if user != nil || file != "" {
			return errors.New("a user or password-file needs sasl=plain, scram-sha-256 or scram-sha-512")
		}
		return nil
	}
	if file != "" {
		if password != "" {
			return errors.New("the password is given twice, in the URL and as password-file")
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read password-file: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	c.user = name
	if name == "" || password == "" {
		return fmt.Errorf("sasl=%s needs a user in the URL and a password (password-file keeps it out of the URL)", mechanism)
	}
	switch mechanism {
	case "plain":
		if c.tls == nil && !plaintext {
			return errors.New("sasl=plain without tls=true sends the password readable over the network; allow-plaintext=true allows it")
		}
		c.sasl = plain.Auth{User: name, Pass: password}.AsMechanism()
	case "scram-sha-256":
		c.sasl = scram.Auth{User: name, Pass: password}.AsSha256Mechanism()
	case "scram-sha-512":
		c.sasl = scram.Auth{User: name, Pass: password}.AsSha512Mechanism()
	default:
		return fmt.Errorf("unknown sasl mechanism %q; known: plain, scram-sha-256, scram-sha-512", mechanism)
	}
	return nil
}

// clientOptions are those of every client.
func (c *config) clientOptions() []kgo.Opt {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.seeds...),
		kgo.ClientID(c.clientID),
		kgo.SoftwareNameAndVersion("dagger", "1"),
		kgo.DisableClientMetrics(), // with many clients they are a load of their own
		// One CONCURRENT_TRANSACTIONS or moved leader waits for this; 5 s by default.
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.DialTimeout(5 * time.Second),
	}
	if c.tls != nil {
		opts = append(opts, kgo.DialTLSConfig(c.tls))
	}
	if c.sasl != nil {
		opts = append(opts, kgo.SASL(c.sasl))
	}
	return opts
}
