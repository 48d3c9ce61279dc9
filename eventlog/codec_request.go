package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// AppendRequest appends the JSON of a request to dst. The error says what can't be written
// (a RawMessage that is not JSON, a NaN); dst is then returned as it was.
func AppendRequest(dst []byte, r *Request) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return dst, fmt.Errorf("encode request: %w", err)
	}
	out := b.Bytes()
	return out[:len(out)-1], nil // without the line end
}

// DecodeRequest reads a request record's value into r and checks what does not depend on
// any state: version, type, ids, sizes. Unknown fields are ignored. A call without a request
// id passes: its owner derives one from the record's position. RawMessages come out compact
// and do not alias data; errors, reasons and stacks come out cut to their limits. The error
// names the field; it is ErrUnknownVersion when a newer version could read the request.
func DecodeRequest(data []byte, r *Request) error {
	*r = Request{}
	if !utf8.Valid(data) {
		return errors.New("decode request: not valid UTF-8")
	}
	if err := json.Unmarshal(data, r); err != nil {
		var head struct {
			V    int         `json:"v"`
			Type RequestType `json:"type"`
		}
		if json.Unmarshal(data, &head) == nil {
			if err := checkRequestVersion(head.V, head.Type); errors.Is(err, ErrUnknownVersion) {
				return fmt.Errorf("decode request: %w", err)
			}
		}
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return fmt.Errorf("decode request: field %s: %s where %s is wanted", e.Field, e.Value, e.Type)
		}
		return fmt.Errorf("decode request: %w", err)
	}
	if err := checkRequest(r); err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	return nil
}

func checkRequestVersion(v int, t RequestType) error {
	switch known := knownRequests[t]; {
	case t == "":
		return errors.New("field type is missing")
	case v <= 0:
		return errors.New("field v is missing or not positive")
	case v > known:
		return fmt.Errorf("request type %q version %d: %w", t, v, ErrUnknownVersion)
	}
	return nil
}

func checkRequest(r *Request) error {
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
	return sizeRequest(r)
}

// sizeRequest checks and cuts what could be long, and compacts what came as JSON.
func sizeRequest(r *Request) error {
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
	r.Params, r.State = compact(r.Params), compact(r.State)
	if r.Message != nil {
		r.Message.Value = compact(r.Message.Value)
	}
	return nil
}

// compact drops the white space of a value that is known to be JSON.
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
