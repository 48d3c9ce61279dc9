package aerospike

import (
	"net/url"
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
	for _, c := range []struct {
		url  string
		want Options
		tls  bool
		show string // URL(); "" = the same as url
		err  string // part of it; "" = none
	}{
		{url: "aerospike://h/ns", want: Options{Addrs: []string{"h:3000"}, Namespace: "ns"}, show: "aerospike://h:3000/ns"},
		{url: "aerospike://h:1,h2,h3:3/ns", want: Options{Addrs: []string{"h:1", "h2:3000", "h3:3"}, Namespace: "ns"}, show: "aerospike://h:1,h2:3000,h3:3/ns"},
		{url: "aerospike://h:1/ns/?set=shop", want: Options{Addrs: []string{"h:1"}, Namespace: "ns", Set: "shop"}, show: "aerospike://h:1/ns?set=shop"},
		{url: "aerospike://[::1]/ns?set=dagger", want: Options{Addrs: []string{"[::1]:3000"}, Namespace: "ns", Set: "dagger"}, show: "aerospike://[::1]:3000/ns"},
		{url: "aerospike://me:s3cret@h:1/ns", want: Options{Addrs: []string{"h:1"}, Namespace: "ns", Username: "me", Password: "s3cret"}, show: "aerospike://me@h:1/ns"},
		{url: "aerospike://me:p%40s@h:1/ns", want: Options{Addrs: []string{"h:1"}, Namespace: "ns", Username: "me", Password: "p@s"}, show: "aerospike://me@h:1/ns"},
		{url: "aerospike://me:@h:1/ns?password_file=" + secret, want: Options{Addrs: []string{"h:1"}, Namespace: "ns", Username: "me", Password: "s3cret"}, show: "aerospike://me@h:1/ns"},
		{url: "aerospike://h:1/ns?tls=on&tls_name=n&timeout=3s&check=off", want: Options{Addrs: []string{"h:1"}, Namespace: "ns", TLSName: "n", Timeout: 3 * time.Second, NoCheck: true}, tls: true, show: "aerospike://h:1/ns?tls=on"},
		{url: "aerospike://me:s3cret@h:1/ns?tls=on&auth=external", want: Options{Addrs: []string{"h:1"}, Namespace: "ns", Username: "me", Password: "s3cret", External: true}, tls: true, show: "aerospike://me@h:1/ns?tls=on"},

		{url: "aerospike:///ns", err: "no server is named"},
		{url: "aerospike://h", err: "the namespace is missing"},
		{url: "aerospike:h:1", err: "the URL is"},
		{url: "aerospike://h/ns#x", err: "the URL is"},
		{url: "aerospike://s3cret@h/ns", err: "user:password@"},
		{url: "aerospike://h/n;s", err: "the namespace's name"},
		{url: "aerospike://h/n/s", err: "the namespace's name"},
		{url: "aerospike://h/ns?set=a:b", err: "the set's name"},
		{url: "aerospike://h/ns?set=" + strings.Repeat("x", 64), err: "up to 63"},
		{url: "aerospike://h/ns?password=s3cret", err: "unknown parameter"},
		{url: "aerospike://h/ns?set=", err: "is empty"},
		{url: "aerospike://h/ns?set=a&set=b", err: "given 2 times"},
		{url: "aerospike://h/ns?timeout=5", err: "no duration"},
		{url: "aerospike://h/ns?timeout=-5s", err: "no duration"},
		{url: "aerospike://h/ns?check=maybe", err: "on or off"},
		{url: "aerospike://h/ns?tls=yes", err: "on or off"},
		{url: "aerospike://h/ns?auth=pki", err: "internal or external"},
		{url: "aerospike://me:s3cret@h/ns?auth=external", err: "needs tls=on"},
		{url: "aerospike://h/ns?tls_name=x", err: "need tls=on"},
		{url: "aerospike://h/ns?tls=on&cert=x", err: "go together"},
		{url: "aerospike://h/ns?tls=on&ca=" + secret, err: "no certificate"},
		{url: "aerospike://h/ns?tls=on&ca=/none", err: "ca: open"},
		{url: "aerospike://h/ns?password_file=/none", err: "password_file: open"},
		{url: "aerospike://h/ns?password_file=" + secret, err: "no user"},
		{url: "aerospike://me:s3cret@h/ns?password_file=" + secret, err: "and a password_file"},
		{url: "aerospike://:s3cret@h/ns", err: "no user"},
		{url: "aerospike://h/ns?%zz", err: "can't be parsed"},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		o, err := parseURL(u)
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
		if diff := cmp.Diff(c.want, o, cmpopts.IgnoreFields(Options{}, "TLS"), cmp.AllowUnexported(Options{})); diff != "" || c.tls != (o.TLS != nil) {
			t.Errorf("%s (-want +got):\n%s", c.url, diff)
		}
		if c.show == "" {
			c.show = c.url
		}
		if got := o.url(); got != c.show {
			t.Errorf("%s: shown as %s, want %s", c.url, got, c.show)
		}
	}
}
