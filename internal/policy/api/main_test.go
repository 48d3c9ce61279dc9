package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const source = `package p

import "context"

const (
	A Status = iota
	B
	hidden
)

var ErrX, errY = f(), f()

type Status string

type Node[P any, M comparable] struct {
	Name  string
	inner int
	context.Context
}

type Any interface {
	Name() string
	own()
}

type small struct{ Exported int }

func (small) Exported() {}
func (n *Node[P, M]) With(o ...Status) Node[P, M] { return *n }
func (n *Node[P, M]) with() {}
func Open(ctx context.Context,
	url string) (err error) { return nil }
func f() error { return nil }
`

const want = `const A Status
const B Status
func Open(ctx context.Context, url string) (err error)
method (*Node[P, M]) With(o ...Status) Node[P, M]
type Any interface
type Any interface, Name() string
type Node[P any, M comparable] struct
type Node[P any, M comparable] struct, Name string
type Node[P any, M comparable] struct, context.Context
type Status string
var ErrX
`

func TestLists(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "p")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	api := func(arg string) (int, string) {
		var out bytes.Buffer
		status := run(root, []string{"p"}, []string{arg}, &out, &out)
		return status, out.String()
	}
	write(source)
	if status, out := api("-check"); status != 1 || !strings.Contains(out, "p: + var ErrX\n") {
		t.Errorf("without a list: status %d, %s", status, out)
	}
	if status, out := api("-w"); status != 0 {
		t.Fatalf("-w: status %d, %s", status, out)
	}
	got, err := os.ReadFile(filepath.Join(dir, "testdata", "api.txt"))
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("list (-want +got):\n%s%v", diff, err)
	}
	if status, out := api("-check"); status != 0 || out != "" {
		t.Errorf("unchanged: status %d, %s", status, out)
	}
	write(strings.Replace(source, "url string", "url []byte", 1))
	if status, out := api("-check"); status != 1 || !strings.Contains(out, "- func Open(ctx context.Context, url string)") {
		t.Errorf("changed: status %d, %s", status, out)
	}
	if status, _ := api("-x"); status != 2 {
		t.Errorf("bad flag: status %d", status)
	}
}
