package eventlog

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden lines and the examples of docs/event-log.md")

// golden compares lines with a file of testdata.
func golden(t *testing.T, name string, lines []string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	got := strings.Join(lines, "\n") + "\n"
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s, -golden +written now (stored bytes are public: a change needs a new version, then -rewrite):\n%s", name, diff)
	}
}

// The lines of old versions must be read for ever: they are frozen here.
func TestGoldenEvents(t *testing.T) {
	var lines []string
	for k, e := range sampleEvents() {
		if k < len(eventTypes) && e.Type != eventTypes[k].typ {
			t.Errorf("sample %d is a %s, not a %s", k, e.Type, eventTypes[k].typ)
		}
		line := AppendEvent(nil, &e)
		lines = append(lines, string(line))
		if bytes.ContainsAny(line, "\n\r") {
			t.Errorf("%s: more than one line", e.Type)
		}
		if std := standard(t, e); !bytes.Equal(std, line) {
			t.Errorf("%s: encoding/json writes\n%s\nnot\n%s", e.Type, std, line)
		}
		var back Event
		if err := DecodeEvent(line, &back); err != nil {
			t.Errorf("%s: %v", e.Type, err)
		} else if diff := cmp.Diff(e, back); diff != "" {
			t.Errorf("%s, -written +read:\n%s", e.Type, diff)
		}
	}
	if len(lines) != len(eventTypes) {
		t.Errorf("%d samples of %d types", len(lines), len(eventTypes))
	}
	golden(t, "events.golden", lines)
}

func TestGoldenRequests(t *testing.T) {
	var lines []string
	for k, r := range sampleRequests() {
		if k < len(requestTypes) && r.Type != requestTypes[k].typ {
			t.Errorf("sample %d is a %s, not a %s", k, r.Type, requestTypes[k].typ)
		}
		line, err := AppendRequest(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
		if std := standard(t, r); !bytes.Equal(std, line) {
			t.Errorf("%s: encoding/json writes\n%s\nnot\n%s", r.Type, std, line)
		}
		var back Request
		if err := DecodeRequest(line, &back); err != nil {
			t.Errorf("%s: %v", r.Type, err)
		} else if diff := cmp.Diff(r, back); diff != "" {
			t.Errorf("%s, -written +read:\n%s", r.Type, diff)
		}
	}
	if len(lines) != len(requestTypes) {
		t.Errorf("%d samples of %d types", len(lines), len(requestTypes))
	}
	golden(t, "requests.golden", lines)
}

// constantsOf are the values of a file's constants of a type.
func constantsOf(t *testing.T, file, typ string) (values []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); ok && id.Name == typ {
			for _, x := range v.Values {
				s, err := strconv.Unquote(x.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, s)
			}
		}
		return true
	})
	return values
}

func TestEveryTypeIsListed(t *testing.T) {
	var events, requests []string
	for _, k := range eventTypes {
		events = append(events, string(k.typ))
		if k.v < 1 {
			t.Errorf("%s has version %d", k.typ, k.v)
		}
	}
	for _, k := range requestTypes {
		requests = append(requests, string(k.typ))
	}
	if diff := cmp.Diff(constantsOf(t, "event.go", "Type"), events); diff != "" {
		t.Errorf("-constants of event.go +eventTypes:\n%s", diff)
	}
	if diff := cmp.Diff(constantsOf(t, "request.go", "RequestType"), requests); diff != "" {
		t.Errorf("-constants of request.go +requestTypes:\n%s", diff)
	}
}
