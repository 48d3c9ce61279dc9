package driver

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	errURL := errors.New("wrong URL")
	r := NewRegistry[int]("thing.Register", errURL, map[string]string{"other": `_ "example.com/other"`})
	r.Register("known", 7)
	for _, c := range []struct{ url, host, err string }{
		{"known://h:1/x", "h:1", ""},
		{"known://me:secret@h:1,i,[::1]:3/x?a=b@c", "h:1,i,[::1]:3", ""},
		{"known:dir/a@b", "", ""},
		{"known:///dir/a@b", "", ""},
		{"dir", "", "wrong URL: the URL has no scheme; linked: known"},
		{"other://me:secret@h", "", `scheme "other" is not linked; import _ "example.com/other"; linked: known`},
		{"third:secret", "", `scheme "third" is not linked; linked: known`},
		{"known://me:secret@h:port/", "", "wrong URL: the known URL can't be parsed"},
		{"known://me:secret@h:1,i:port/", "", "wrong URL: the known URL can't be parsed"},
		{"known://me:1/secret@h/x", "", "write @ : / ? # [ ] % as %40 %3A %2F %3F %23 %5B %5D %25"},
		{"known://me:1?secret@h/x", "", "wrong URL"},
		{"known://me:1#secret@h/x", "", "wrong URL"},
	} {
		got, u, err := r.Find(c.url)
		switch {
		case c.err == "" && (err != nil || got != 7 || u.Host != c.host):
			t.Errorf("Find(%q) = %d, %v, %v, want host %q", c.url, got, u, err, c.host)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "secret")):
			t.Errorf("Find(%q): %v, want an error with %q and without the password", c.url, err, c.err)
		case strings.HasPrefix(c.err, "wrong URL") && !errors.Is(err, errURL):
			t.Errorf("Find(%q): %v does not wrap the registry's error", c.url, err)
		}
	}
}

func TestRegister(t *testing.T) {
	r := NewRegistry[func()]("thing.Register", nil, nil)
	r.Register("b", func() {})
	r.Register("a", func() {})
	if s := r.Schemes(); !slices.Equal(s, []string{"a", "b"}) {
		t.Errorf("Schemes() = %v", s)
	}
	for _, c := range []struct {
		scheme string
		driver func()
		want   string
	}{
		{"b", func() {}, "thing.Register: the scheme b is taken"},
		{"c", nil, "thing.Register: the function for the scheme c is nil"},
	} {
		func() {
			defer func() {
				if said := recover(); said != c.want {
					t.Errorf("Register panics with %v, want %q", said, c.want)
				}
			}()
			r.Register(c.scheme, c.driver)
		}()
	}
}
