package projection

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestParameters: what a URL says is read, and the first mistake is told without its secrets.
func TestParameters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	known := []string{"name", "mode", "wait", "count", "addr", "password_file", "ca", "cert", "key"}
	parse := func(raw string) (*url.URL, *Parameters) {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return u, ParseParameters(u, known...)
	}
	u, p := parse("x://me:@a,b:2/?name=n&mode=off&wait=3s&count=7&addr=[::1]&addr=d:4&password_file=" + file)
	user, password := p.Login(u)
	addrs := strings.Join(p.Addresses(u, "1", p.All("addr")...), " ")
	if p.Text("name") != "n" || p.OneOf("mode", "on", "off") != "off" || p.Duration("wait") != 3*time.Second || p.Number("count", 1, 7) != 7 ||
		user != "me" || password != "s3cret" || addrs != "a:1 b:2 [::1]:1 d:4" || p.Certificates(nil) || p.Err() != nil {
		t.Errorf("%+v: user %s, password %s, addresses %s, %v", p, user, password, addrs, p.Err())
	}
	_, p = parse("x://h")
	if p.Text("name")+p.OneOf("mode", "on")+p.Secret("password_file") != "" || p.Duration("wait") != 0 || p.Number("count", 1, 2) != 0 || p.Err() != nil {
		t.Errorf("of a URL without parameters: %+v", p)
	}
	for raw, want := range map[string]string{
		"x://h?password=s3cret":                        "unknown parameter",
		"x://h?name=":                                  "is empty",
		"x://h?%zz=s3cret":                             "can't be parsed",
		"x://h?name=a&name=b":                          "given 2 times",
		"x://h?mode=s3cret":                            "on or off",
		"x://h?wait=5":                                 "no duration",
		"x://h?count=8":                                "number from 1 to 7",
		"x://s3cret@h":                                 "user:password@",
		"x://h?addr=:":                                 "no host:port",
		"x://h?addr=::1:2":                             "written in brackets, as in [::1]:1",
		"x://me:s3cret@h?password_file=" + file:        "and a password_file",
		"x://h?password_file=/none":                    "password_file: open",
		"x://h?wait=5&name=a&name=b":                   "given 2 times", // the first that is read
		"x://me:s3cret@h?addr=:&password_file=" + file: "and a password_file",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		p := ParseParameters(u, known...)
		p.Login(u)
		p.Text("name")
		p.OneOf("mode", "on", "off")
		p.Duration("wait")
		p.Number("count", 1, 7)
		p.Addresses(u, "1", p.All("addr")...)
		if p.Err() == nil || !strings.Contains(p.Err().Error(), want) || strings.Contains(strings.ReplaceAll(p.Err().Error(), file, ""), "s3cret") {
			t.Errorf("%s: %v, want an error with %q", raw, p.Err(), want)
		}
		if p.Text("name") != "" {
			t.Errorf("%s: what is read after a mistake is %q", raw, p.Text("name"))
		}
		if ConcealURL(u, known...); strings.Contains(strings.ReplaceAll(u.Redacted(), url.QueryEscape(file), ""), "s3cret") && !strings.Contains(raw, "mode=") {
			t.Errorf("%s is shown as %s", raw, u.Redacted())
		}
	}
}
