package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

func checkRequestVersion(v int, t RequestType) error {
	switch known := knownRequests[t].v; {
	case t == "":
		return errors.New("field type is missing")
	case v <= 0:
		return errors.New("field v is missing or not positive")
	case v > known:
		return unknownVersion(string(t), v)
	}
	return nil
}

// checkRequest checks what depends on no state. spaces says that the RawMessages may have
// white space.
func checkRequest(r *Request, spaces bool) error {
	if err := checkRequestVersion(r.V, r.Type); err != nil {
		return err
	}
	switch r.Type {
	case Ack:
		if r.Upto == nil {
			return errors.New("field upto is missing")
		}
	case Deliver:
	default:
		if err := ValidateID(r.ID); err != nil {
			return fmt.Errorf("field id: %w", err)
		}
	}
	if r.Request != "" {
		if err := ValidateID(r.Request); err != nil {
			return fmt.Errorf("field request: %w", err)
		}
	}
	switch r.Type {
	case Deliver, Subscribe, Unsubscribe, Returned:
		for _, f := range []struct{ name, value string }{{"topic", r.Topic}, {"key", r.Key}, {"value", r.Value}} {
			if f.value == "" {
				return fmt.Errorf("field %s is missing", f.name)
			}
		}
	case StartInstance:
		if r.Definition == "" && r.Plan == "" {
			return errors.New("field definition is missing")
		}
	}
	if (r.Source == nil) != (r.Mark == nil) {
		return errors.New("field mark or source is missing: they go together")
	}
	if r.Made < 0 || r.TTL < 0 || r.RetryAfter < 0 || r.Expires < 0 || r.Attempt < 0 {
		return errors.New("field made, ttl, retryAfter, expires or attempt is negative")
	}
	if r.Jitter < 0 || r.Jitter >= 1 {
		return errors.New("field jitter is not in [0,1)")
	}
	return sizeRequest(r, spaces)
}

// sizeRequest checks and cuts what could be long, and compacts what came as JSON.
func sizeRequest(r *Request, spaces bool) error {
	for _, f := range []struct {
		name, value string
		max         int
	}{
		{"value", r.Value, MaxID},
		{"path", r.Path, MaxName},
		{"definition", r.Definition, MaxName},
		{"plan", r.Plan, MaxName},
		{"topic", r.Topic, MaxName},
		{"key", r.Key, MaxName},
	} {
		if len(f.value) > f.max {
			return fmt.Errorf("field %s has %d bytes; at most %d fit", f.name, len(f.value), f.max)
		}
	}
	for _, k := range r.Keys {
		if len(k.Path) > MaxName || len(k.Value) > MaxID {
			return fmt.Errorf("field keys: a path of %d bytes and a value of %d; at most %d and %d fit", len(k.Path), len(k.Value), MaxName, MaxID)
		}
	}
	r.Error, r.Reason, r.Stack = cut(r.Error, MaxError), cut(r.Reason, MaxError), cut(r.Stack, MaxStack)
	if len(r.Params) > 0 && r.Params[0] != '{' {
		return errors.New("field params is not a JSON object")
	}
	if spaces {
		r.Params, r.State = compact(r.Params), compact(r.State)
		if r.Message != nil {
			r.Message.Value = compact(r.Message.Value)
		}
	}
	return nil
}

// compact is a value that is known to be JSON without its white space.
func compact(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 {
		return raw
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// cut shortens a text to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
