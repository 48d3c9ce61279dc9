// Package buckettest is the contract of a snapshot.Bucket as a test.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/godagger/dagger/projection/snapshot"
)

// Run checks an empty bucket.
func Run(t *testing.T, b snapshot.Bucket) {
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	list := func(prefix string, want ...string) {
		t.Helper()
		got, err := b.List(ctx, prefix)
		must(err)
		if !slices.Equal(got, want) {
			t.Fatalf("List(%q) is %q, want %q", prefix, got, want)
		}
	}
	if b.URL() == "" {
		t.Error("URL is empty")
	}
	list("")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, content := range map[string][]byte{"shop/p-00001/a.rows": big, "shop/p-00001/a.json": []byte("{}"), "shop/p-00010/b.json": {}, "shop2/c": []byte("c")} {
		must(b.Put(ctx, name, bytes.NewReader(content)))
		r, err := b.Get(ctx, name)
		must(err)
		got, err := io.ReadAll(r)
		must(errors.Join(err, r.Close()))
		if !bytes.Equal(got, content) {
			t.Fatalf("%s has %d bytes, want %d", name, len(got), len(content))
		}
	}
	list("shop/p-00001/", "shop/p-00001/a.json", "shop/p-00001/a.rows")
	list("shop/", "shop/p-00001/a.json", "shop/p-00001/a.rows", "shop/p-00010/b.json")
	must(b.Put(ctx, "shop2/c", strings.NewReader("replaced")))
	// Whole or not at all: what breaks off leaves what was there.
	broken := errors.New("the source broke")
	for _, name := range []string{"shop2/c", "shop2/d"} {
		if err := b.Put(ctx, name, io.MultiReader(bytes.NewReader(big), failing{broken})); !errors.Is(err, broken) {
			t.Fatalf("Put whose reader fails: %v", err)
		}
	}
	list("shop2/", "shop2/c")
	r, err := b.Get(ctx, "shop2/c")
	must(err)
	got, err := io.ReadAll(r)
	must(errors.Join(err, r.Close()))
	if string(got) != "replaced" {
		t.Fatalf("after a Put that failed the object is %q", got)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Put(gone, "shop2/e", bytes.NewReader(big)); err == nil {
		t.Error("Put with a context that has ended succeeds")
	}
	list("shop2/", "shop2/c")
	must(b.Delete(ctx, "shop2/c"))
	must(b.Delete(ctx, "shop2/c"))
	if _, err := b.Get(ctx, "shop2/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of what was deleted: %v, want fs.ErrNotExist", err)
	}
	list("shop2/")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
