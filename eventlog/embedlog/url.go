package embedlog

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/godagger/dagger/eventlog"
)

func init() {
	eventlog.Register("file", func(ctx context.Context, u *url.URL) (eventlog.Log, error) {
		o, err := optionsOf(u)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", eventlog.ErrURL, err)
		}
		dir, err := dirOf(u)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", eventlog.ErrURL, err)
		}
		l, err := Open(ctx, dir, o)
		if err != nil {
			return nil, err
		}
		return l, nil
	})
	eventlog.Register("mem", func(_ context.Context, u *url.URL) (eventlog.Log, error) {
		o, err := optionsOf(u)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", eventlog.ErrURL, err)
		}
		if u.Opaque+u.Host+u.Path != "" {
			return nil, fmt.Errorf("%w: it must be mem: with parameters only", eventlog.ErrURL)
		}
		l, err := OpenMemory(o)
		if err != nil {
			return nil, err
		}
		return l, nil
	})
}

// dirOf is the directory that a URL names.
func dirOf(u *url.URL) (dir string, err error) {
	dir = u.Path
	if u.Opaque != "" {
		if dir, err = url.PathUnescape(u.Opaque); err != nil {
			return "", fmt.Errorf("directory: %w", err)
		}
	}
	if dir == "" || u.Host != "" {
		return "", errors.New("the URL must be file:DIR or file:///DIR")
	}
	return dir, nil
}

func optionsOf(u *url.URL) (Options, error) {
	o := Options{URL: u.Redacted()}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, errors.New("the parameters can't be parsed")
	}
	for name, values := range query {
		value := values[len(values)-1]
		var err error
		switch name {
		case "app":
			o.App = value
		case "partitions":
			var n int64
			n, err = strconv.ParseInt(value, 10, 32)
			if err == nil && (n < 1 || n > 10000) {
				err = errors.New("must be a number from 1 to 10000")
			}
			o.Partitions = int32(n)
		case "max-record":
			o.MaxRecord, err = strconv.Atoi(value)
			if err == nil && o.MaxRecord < 1024 {
				err = errors.New("must be at least 1024")
			}
		default:
			return o, fmt.Errorf("unknown parameter %q; known: app, partitions, max-record", name)
		}
		if err != nil {
			return o, fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return o, nil
}
