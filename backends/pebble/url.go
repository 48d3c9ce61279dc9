package pebble

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/godagger/dagger/projection"
)

func init() {
	projection.Register("pebble", func(ctx context.Context, u *url.URL, id projection.Identity) (projection.Store, error) {
		dir, options, err := parseURL(u)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", projection.ErrURL, err)
		}
		return Open(ctx, dir, id, options)
	})
}

func parseURL(u *url.URL) (dir string, options Options, err error) {
	if u.User != nil || u.Host != "" || u.Fragment != "" {
		return "", options, errors.New("pebble: the URL is pebble:///absolute/directory or pebble:relative/directory, without host, user or fragment")
	}
	dir = u.Path
	if u.Opaque != "" {
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			return "", options, errors.New("pebble: the directory is badly escaped")
		}
	}
	if dir == "" {
		return "", options, errors.New("pebble: the URL names no directory")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", options, errors.New("pebble: the parameters can't be parsed")
	}
	for name, values := range query {
		if len(values) != 1 {
			return "", options, fmt.Errorf("pebble: parameter %s is given %d times", name, len(values))
		}
		switch name {
		case "wal":
			if values[0] != "on" && values[0] != "off" {
				return "", options, errors.New("pebble: wal is on or off")
			}
			options.NoWAL = values[0] == "off"
		case "cache":
			options.Cache, err = parseSize(name, values[0])
		case "memtables":
			options.Memtables, err = parseSize(name, values[0])
		default:
			err = fmt.Errorf("pebble: unknown parameter %q; known: wal, cache, memtables", name)
		}
		if err != nil {
			return "", options, err
		}
	}
	return dir, options, nil
}

// parseSize reads a size such as 128MiB, 1GiB or 1048576; 1 MiB is the least.
func parseSize(name, text string) (int64, error) {
	digits, shift := text, 0
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if before, found := strings.CutSuffix(text, unit); found {
			digits, shift = before, 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > (1<<40)>>shift || n<<shift < 1<<20 {
		return 0, fmt.Errorf("pebble: %s=%q is not a size from 1MiB to 1024GiB", name, text)
	}
	return n << shift, nil
}
