package eventlog

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestOpenNamesTheImport(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"file:dagger-data/log", `scheme "file" is not linked; import _ "github.com/godagger/dagger/eventlog/embedlog"`},
		{"mem:", `import _ "github.com/godagger/dagger/eventlog/embedlog"`},
		{"kafka://u:secret@h:9092/app", `import _ "github.com/godagger/dagger/eventlog/kafkalog"`},
		{"nats://u:secret@h/app", `scheme "nats" is not linked; linked:`},
		{"dagger-data", "the URL has no scheme"},
	} {
		_, err := Open(t.Context(), c.url)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%q): %v, want …%s…", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) tells the secret: %v", c.url, err)
		}
	}
}

// opened is what the scheme opentest opens; a scheme is registered once in a process.
var opened func(*url.URL) (Log, error)

func init() {
	Register("opentest", func(_ context.Context, u *url.URL) (Log, error) { return opened(u) })
}

func TestOpenParsesAndRedacts(t *testing.T) {
	refused := errors.New("refused")
	var got *url.URL
	opened = func(u *url.URL) (Log, error) {
		got = u
		return nil, refused
	}
	if !slices.Contains(Schemes(), "opentest") {
		t.Errorf("Schemes() = %v", Schemes())
	}
	for _, c := range []struct{ url, host, path string }{
		{"opentest://u:secret@a:9092,b:9093/app?x=y", "a:9092,b:9093", "/app"},
		{"opentest://u:secret@[::1]:9092,[::2]:9092/app", "[::1]:9092,[::2]:9092", "/app"},
		{"opentest://u:secret@a", "a", ""},
		{"opentest:///tmp/log", "", "/tmp/log"},
	} {
		_, err := Open(t.Context(), c.url)
		if !errors.Is(err, refused) || !strings.HasPrefix(err.Error(), "open log opentest://") {
			t.Errorf("Open(%q): %v", c.url, err)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q) tells the secret: %v", c.url, err)
		}
		if got.Host != c.host || got.Path != c.path {
			t.Errorf("Open(%q) has host %q and path %q", c.url, got.Host, got.Path)
		}
	}
	for _, bad := range []string{
		"opentest://u:secret@a:port/", "opentest://u:secret@a:1,b:x/", "opentest://u:secret@%zz/",
		// passwords with characters that end a host
		"opentest://u:1/secret@a:1/app", "opentest://:p@ss/secret@a/app?x=y", "opentest://u:1?secret@a/app", "opentest://u:1#secret@a/app",
		"opentest://u:1/x=secret@a", "opentest://u:1?x=y#secret@a",
	} {
		if _, err := Open(t.Context(), bad); !errors.Is(err, ErrURL) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "write @ : / ? # [ ] % as %40") {
			t.Errorf("Open(%q): %v", bad, err)
		}
		if shown := Redacted(bad); strings.Contains(shown, "secret") {
			t.Errorf("Redacted(%q) = %q", bad, shown)
		}
	}
	for _, good := range []string{"opentest:///dir/a@b", "opentest:dir/a@b", "opentest://h/app?ca=/etc/a@b"} {
		if _, err := Open(t.Context(), good); !errors.Is(err, refused) {
			t.Errorf("Open(%q): %v", good, err)
		}
	}
	if _, err := Open(t.Context(), "opentest:dir/log"); !errors.Is(err, refused) || got.Opaque != "dir/log" {
		t.Errorf("opaque part %q, error %v", got.Opaque, err)
	}
}
