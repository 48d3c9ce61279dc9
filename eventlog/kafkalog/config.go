package kafkalog

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

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
	create      bool // topics that are missing
	counted     bool // partitions was named
	user        string
	tls         *tls.Config
	sasl        sasl.Mechanism
}

// appNames are those that make legal topic names.
var appNames = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

var parameters = []string{
	"partitions", "replication", "client-id", "create", "tls", "ca", "cert", "key",
	"sasl", "password-file", "allow-plaintext",
}

// parse reads a URL. Its errors never hold the password.
func parse(u *url.URL) (config, error) { return parseWith(u, Options{}) }

func parseWith(u *url.URL, o Options) (config, error) {
	c := config{partitions: eventlog.DefaultPartitions, clientID: "dagger", create: true}
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
	number("partitions", 10000, func(n int) { c.partitions, c.counted = int32(n), true })
	number("replication", 100, func(n int) { c.replication = int16(n) })
	if q.Has("create") {
		c.create = flag("create")
	}
	if s := q.Get("client-id"); s != "" {
		c.clientID = s
	}
	if err := c.parseTLS(o.TLS, flag("tls"), q.Get("ca"), q.Get("cert"), q.Get("key")); err != nil {
		errs = append(errs, err)
	}
	if err := c.parseSASL(u.User, q.Get("sasl"), o.Password, q.Get("password-file"), flag("allow-plaintext")); err != nil {
		errs = append(errs, err)
	}
	clean := *u
	if u.User != nil {
		clean.User = url.User(u.User.Username())
	}
	// Whether topics were to be made says nothing of which log it is.
	clean.RawQuery = strings.Join(slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(p string) bool { return strings.HasPrefix(p, "create=") }), "&")
	c.url = clean.String()
	if len(errs) > 0 {
		return c, fmt.Errorf("%w: %w", eventlog.ErrURL, errors.Join(errs...))
	}
	return c, nil
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
