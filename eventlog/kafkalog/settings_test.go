package kafkalog

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/godagger/dagger/eventlog"
)

func admin(t *testing.T, addrs string) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(addrs, ",")...), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func appURL(addrs, app, params string) *url.URL {
	return &url.URL{Scheme: "kafka", Host: addrs, Path: "/" + app, RawQuery: params}
}

func TestSettingsRefused(t *testing.T) {
	addrs, _ := brokers(t)
	adm := admin(t, addrs)
	for _, tt := range []struct {
		topic      string // without the application's name
		partitions int32
		settings   map[string]string
		want       error
		says       []string
	}{
		{".events", 2, map[string]string{"cleanup.policy": "compact", "retention.ms": "-1"}, eventlog.ErrSettings, []string{"cleanup.policy=compact", "set cleanup.policy=delete"}},
		{".events", 2, map[string]string{"retention.ms": "604800000"}, eventlog.ErrSettings, []string{"retention.ms=604800000", "set retention.ms=-1"}},
		{".events", 2, map[string]string{"retention.ms": "-1", "retention.bytes": "1000000"}, eventlog.ErrSettings, []string{"retention.bytes=1000000"}},
		{".requests", 2, map[string]string{"cleanup.policy": "compact,delete", "retention.ms": "-1"}, eventlog.ErrSettings, []string{"cleanup.policy=compact,delete"}},
		{".requests", 2, nil, eventlog.ErrSettings, []string{"retention.ms="}}, // the brokers' default is a week
		{".definitions", 1, map[string]string{"cleanup.policy": "delete"}, eventlog.ErrSettings, []string{"cleanup.policy=delete", "set cleanup.policy=compact"}},
		{".definitions", 2, map[string]string{"cleanup.policy": "compact"}, eventlog.ErrPartitions, []string{"2 partitions, not 1"}},
		{".events", 3, map[string]string{"retention.ms": "-1"}, eventlog.ErrPartitions, []string{"3 partitions, not 2", "partitions=3"}},
	} {
		app := newApp()
		topic := app + tt.topic
		settings := map[string]*string{}
		for k, v := range tt.settings {
			settings[k] = &v
		}
		if _, err := adm.CreateTopic(t.Context(), tt.partitions, 1, settings, topic); err != nil {
			t.Fatal(err)
		}
		l, err := Open(t.Context(), appURL(addrs, app, "partitions=2"))
		if err == nil {
			_ = l.Close()
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("open with %s of %d partitions and %v: %v, not %v", tt.topic, tt.partitions, tt.settings, err, tt.want)
			continue
		}
		for _, s := range append(tt.says, topic) {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("the error does not say %q: %v", s, err)
			}
		}
	}
}

func TestOldBrokersRefused(t *testing.T) {
	c := fake(t, kfake.MaxVersions(kversion.V3_9_0()))
	l, err := Open(t.Context(), appURL(strings.Join(c.ListenAddrs(), ","), newApp(), ""))
	if err == nil {
		_ = l.Close()
		t.Fatal("opened on Kafka 3.9")
	}
	if !strings.Contains(err.Error(), "Kafka 4.0 or newer") {
		t.Error(err)
	}
}

func TestNoBroker(t *testing.T) {
	_, err := Open(t.Context(), appURL("127.0.0.1:1", newApp(), ""))
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("open without a broker: %v", err)
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct{ url, says string }{
		{"kafka://h:9092/", "application's name"},
		{"kafka://h:9092/a/b", "application's name"},
		{"kafka:///app", "host:port"},
		{"kafka://h:99999/app", "host:port"},
		{"kafka://h:9092/app?partition=3", `unknown parameter "partition"; known: partitions`},
		{"kafka://h:9092/app?partitions=0", "partitions must be a number"},
		{"kafka://h:9092/app?partitions=x", "partitions must be a number"},
		{"kafka://h:9092/app?partitions=1&partitions=2", "given twice"},
		{"kafka://h:9092/app?replication=-1", "replication must be a number"},
		{"kafka://h:9092/app?tls=perhaps", "tls must be true or false"},
		{"kafka://h:9092/app?ca=x", "need tls=true"},
		{"kafka://h:9092/app?tls=true&ca=/does/not/exist", "read ca"},
		{"kafka://h:9092/app?tls=true&cert=x", "cert and key go together"},
		{"kafka://u:sesame@h:9092/app", "needs sasl="},
		{"kafka://u:sesame@h:9092/app?sasl=plain", "allow-plaintext=true"},
		{"kafka://u:sesame@h:9092/app?sasl=gssapi", "unknown sasl mechanism"},
		{"kafka://u@h:9092/app?sasl=scram-sha-256", "needs a user in the URL and a password"},
		{"kafka://u:sesame@h:9092/app?sasl=plain&tls=true&password-file=/x", "given twice"},
		{"kafka://u@h:9092/app?sasl=plain&tls=true&password-file=/does/not/exist", "read password-file"},
	} {
		_, err := eventlog.Open(t.Context(), tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("open %s: %v, which does not say %q", tt.url, err, tt.says)
		}
		if err != nil && strings.Contains(err.Error(), "sesame") {
			t.Errorf("the password stands in the error: %v", err)
		}
	}
	u, err := url.Parse("kafka://u:sesame@h/app?sasl=scram-sha-512&create=false&partitions=4")
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	if c.seeds[0] != "h:9092" || c.partitions != 4 || c.app != "app" || c.sasl.Name() != "SCRAM-SHA-512" || c.create || c.url != "kafka://u@h/app?sasl=scram-sha-512&partitions=4" {
		t.Errorf("parsed %+v", c)
	}
}

// TestSASL opens with users that the brokers know, and with a wrong password.
func TestSASL(t *testing.T) {
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		c := fake(t, kfake.EnableSASL(), kfake.Superuser(strings.ToUpper(mechanism), "ann", "sesame"))
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		hosts := strings.Join(c.ListenAddrs(), ",")
		l, err := eventlog.Open(t.Context(), "kafka://ann@"+hosts+"/"+newApp()+"?partitions=1&allow-plaintext=true&sasl="+mechanism+"&password-file="+file)
		if err != nil {
			t.Errorf("open with %s: %v", mechanism, err)
			continue
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_, err = eventlog.Open(t.Context(), "kafka://ann:wr0ngword@"+hosts+"/"+newApp()+"?partitions=1&allow-plaintext=true&sasl="+mechanism)
		if err == nil || strings.Contains(err.Error(), "wr0ngword") {
			t.Errorf("open with a wrong password: %v", err)
		}
	}
}
