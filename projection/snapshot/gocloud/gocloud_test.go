package gocloud

import (
	"net/url"
	"strings"
	"testing"

	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/godagger/dagger/projection/snapshot"
	"github.com/godagger/dagger/projection/snapshot/buckettest"
)

func TestContractInMemory(t *testing.T) {
	b := New(memblob.OpenBucket(nil), "mem://")
	defer b.Close()
	buckettest.Run(t, b)
}

func TestContractInDirectory(t *testing.T) {
	dir, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{Metadata: fileblob.MetadataDontWrite})
	if err != nil {
		t.Fatal(err)
	}
	b := New(dir, "file://")
	defer b.Close()
	buckettest.Run(t, b)
}

func TestOpenWithoutDriver(t *testing.T) {
	for _, raw := range []string{"s3://bucket?region=eu", "gs://bucket", "azblob://bucket"} {
		_, err := snapshot.OpenBucket(t.Context(), raw)
		u, _ := url.Parse(raw)
		if err == nil || !strings.Contains(err.Error(), "gocloud.dev/blob/"+u.Scheme+"blob") {
			t.Errorf("open %s: %v", raw, err)
		}
	}
}
