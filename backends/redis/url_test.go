package redis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/godagger/dagger/projection"
)

func TestURLs(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := certificate(t, dir)
	for _, c := range []struct {
		url  string
		want Options
		tls  bool
		show string // URL(); "" = the same as url
		err  string // part of it; "" = none
	}{
		{url: "redis://h", want: Options{Addrs: []string{"h:6379"}}, show: "redis://h:6379/0"},
		{url: "redis://h:7000/3", want: Options{Addrs: []string{"h:7000"}, DB: 3}},
		{url: "redis://:s3cret@h:1/0", want: Options{Addrs: []string{"h:1"}, Password: "s3cret"}, show: "redis://h:1/0"},
		{url: "redis://me:s3cret@h:1/0", want: Options{Addrs: []string{"h:1"}, Username: "me", Password: "s3cret"}, show: "redis://me@h:1/0"},
		{url: "redis://me:p%40s%2Fs@h:1/0", want: Options{Addrs: []string{"h:1"}, Username: "me", Password: "p@s/s"}, show: "redis://me@h:1/0"},
		{url: "redis://[::1]/0", want: Options{Addrs: []string{"[::1]:6379"}}, show: "redis://[::1]:6379/0"},
		{url: "redis://h:1/0?prefix=x&buckets=64&timeout=3s&check=off", want: Options{Addrs: []string{"h:1"}, Prefix: "x", Buckets: 64, Timeout: 3 * time.Second, NoCheck: true}, show: "redis://h:1/0?prefix=x"},
		{url: "redis://h:1/0?check=on&prefix=dagger", want: Options{Addrs: []string{"h:1"}, Prefix: "dagger"}, show: "redis://h:1/0"},
		{url: "redis://h:1/0?password_file=" + secret, want: Options{Addrs: []string{"h:1"}, Password: "s3cret"}, show: "redis://h:1/0"},
		{url: "rediss://h:1/0", want: Options{Addrs: []string{"h:1"}}, tls: true},
		{url: "rediss://h:1/0?ca=" + cert + "&cert=" + cert + "&key=" + key, want: Options{Addrs: []string{"h:1"}}, tls: true, show: "rediss://h:1/0"},
		{url: "redis+sentinel://me:s3cret@s1,s2:5/2?master=m&addr=s3:1&addr=[::1]:2&sentinel_user=x&sentinel_password_file=" + secret,
			want: Options{Mode: Sentinel, Addrs: []string{"s1:26379", "s2:5", "s3:1", "[::1]:2"}, DB: 2, Master: "m",
				Username: "me", Password: "s3cret", SentinelUsername: "x", SentinelPassword: "s3cret"},
			show: "redis+sentinel://me@s1:26379,s2:5,s3:1,[::1]:2/2?master=m"},
		{url: "rediss+sentinel://s1:1/0?master=m", want: Options{Mode: Sentinel, Addrs: []string{"s1:1"}, Master: "m"}, tls: true},
		{url: "redis+cluster://h1,h2:1", want: Options{Mode: Cluster, Addrs: []string{"h1:6379", "h2:1"}}, show: "redis+cluster://h1:6379,h2:1"},
		{url: "redis+cluster://?addr=h1:1", want: Options{Mode: Cluster, Addrs: []string{"h1:1"}}, show: "redis+cluster://h1:1"},
		{url: "rediss+cluster://h1:1/", want: Options{Mode: Cluster, Addrs: []string{"h1:1"}}, tls: true, show: "rediss+cluster://h1:1"},

		{url: "redis://", err: "no server is named"},
		{url: "redis:h:1", err: "the URL is"},
		{url: "redis://h#x", err: "the URL is"},
		{url: "redis://s3cret@h", err: "user:password@"},
		{url: "redis://h/zero", err: "no number of a database"},
		{url: "redis://h/-1", err: "no number of a database"},
		{url: "redis://h1,h2", err: "redis+sentinel or redis+cluster"},
		{url: "redis://h?password=s3cret", err: "unknown parameter"},
		{url: "redis://h?db=3", err: "unknown parameter"},
		{url: "redis://h?prefix=", err: "is empty"},
		{url: "redis://h?prefix=a&prefix=b", err: "given 2 times"},
		{url: "redis://h?prefix={x}", err: "no braces"},
		{url: "redis://h?buckets=0", err: "not a number from 1"},
		{url: "redis://h?buckets=257", err: "a number from 1"},
		{url: "redis://h?timeout=5", err: "no duration"},
		{url: "redis://h?timeout=-5s", err: "no duration"},
		{url: "redis://h?check=maybe", err: "on or off"},
		{url: "redis://h?master=m", err: "need redis+sentinel"},
		{url: "redis://h?ca=" + cert, err: "need rediss"},
		{url: "rediss://h?cert=" + cert, err: "go together"},
		{url: "rediss://h?ca=" + secret, err: "no certificate"},
		{url: "rediss://h?ca=/none", err: "ca: open"},
		{url: "redis://h?password_file=/none", err: "password_file: open"},
		{url: "redis://:s3cret@h?password_file=" + secret, err: "and a password_file"},
		{url: "redis+sentinel://h", err: "needs master=NAME"},
		{url: "redis+cluster://h/1", err: "database 0 only"},
		{url: "redis+cluster://h?%zz", err: "can't be parsed"},
	} {
		o, err := parseURL(parse(t, c.url))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", c.url, err, c.err)
			}
			_, err = projection.Open(t.Context(), c.url, identity)
			if err == nil || strings.Contains(strings.ReplaceAll(err.Error(), secret, ""), "s3cret") {
				t.Errorf("%s: Open says %v, which must be an error without the password", c.url, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if diff := cmp.Diff(c.want, o, cmpopts.IgnoreFields(Options{}, "TLS")); diff != "" || c.tls != (o.TLS != nil) {
			t.Errorf("%s (-want +got):\n%s", c.url, diff)
		}
		if o.Prefix == "" {
			o.Prefix = defaultPrefix
		}
		if c.show == "" {
			c.show = c.url
		}
		if got := o.url(); got != c.show {
			t.Errorf("%s: shown as %s, want %s", c.url, got, c.show)
		}
	}
}

// TestSchemes: every scheme is known to package projection.
func TestSchemes(t *testing.T) {
	known := strings.Join(projection.Schemes(), " ") + " "
	for _, scheme := range []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"} {
		if !strings.Contains(known, scheme+" ") {
			t.Errorf("scheme %s is not registered", scheme)
		}
	}
}
