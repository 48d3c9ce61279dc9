package projection

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
)

func init() {
	Register("fails", func(context.Context, *url.URL, Identity) (Store, error) { return nil, errors.New("refused") })
}

func TestOpenNamesWhatIsMissing(t *testing.T) {
	for raw, want := range map[string]string{
		"store":                       "no scheme",
		"redis://me:secret@host":      `import _ "github.com/godagger/dagger/backends/redis"`,
		"nosuch://me:secret@host":     "linked: fails",
		"fails://me:secret@host":      "refused",
		"fails://me:secret@ho st:%zz": "can't be parsed",
		// passwords with characters that end a host
		"fails://me:p@ss/secret@host/0":        "write @ : / ? # [ ] % as %40",
		"fails://me:1?secret@host/0":           "write @ : / ? # [ ] % as %40",
		"fails://me:1#secret@host/0":           "write @ : / ? # [ ] % as %40",
		"fails://me:secret@host/0?ca=/etc/a@b": "refused",
		"fails:///dir/a@b":                     "refused",
	} {
		_, err := Open(t.Context(), raw, Identity{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): %v, want an error with %q and without the password", raw, err, want)
		}
	}
}

func TestBatchSettles(t *testing.T) {
	have := Watermark{N: 5, Epoch: 2, LogID: "a", Sum: 55}
	next := Watermark{N: 6, Epoch: 2, LogID: "a", Sum: 66}
	for name, c := range map[string]struct {
		b     Batch
		apply bool
		err   error
	}{
		"next":            {Batch{Expected: 5, New: next}, true, nil},
		"again":           {Batch{Expected: 4, New: have}, false, nil},
		"other sum":       {Batch{Expected: 4, New: Watermark{N: 5, Epoch: 2, LogID: "a", Sum: 1}}, false, ErrWatermark},
		"other log":       {Batch{Expected: 4, New: Watermark{N: 5, Epoch: 2, LogID: "b", Sum: 55}}, false, ErrWatermark},
		"too far":         {Batch{Expected: 6, New: Watermark{N: 7, Epoch: 2}}, false, ErrWatermark},
		"too late":        {Batch{Expected: 3, New: Watermark{N: 4, Epoch: 2}}, false, ErrWatermark},
		"old epoch":       {Batch{Expected: 5, New: Watermark{N: 6, Epoch: 1}}, false, ErrFenced},
		"old epoch again": {Batch{Expected: 4, New: Watermark{N: 5, Epoch: 1, LogID: "a", Sum: 55}}, false, ErrFenced},
	} {
		apply, err := c.b.Settles(have)
		if apply != c.apply || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v, want %v, %v", name, apply, err, c.apply, c.err)
		}
	}
}
