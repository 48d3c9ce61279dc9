package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Validate checks a request that did not come from DecodeRequest (a call or result made in
// this process) as DecodeRequest would, and compacts and cuts it likewise. What passes can
// become part of an event.
func (r *Request) Validate() error {
	type member struct {
		name string
		raw  json.RawMessage
	}
	members := []member{{"params", r.Params}, {"state", r.State}}
	for _, item := range r.Items {
		members = append(members, member{"items", item})
	}
	if r.Message != nil {
		members = append(members, member{"message.value", r.Message.Value})
	}
	spaces := false
	for _, f := range members {
		if len(f.raw) == 0 {
			continue
		}
		s := scanner{data: f.raw}
		s.skip(0)
		if s.end(); s.err != nil {
			return fmt.Errorf("field %s: %w", f.name, s.err)
		}
		if !utf8.Valid(f.raw) {
			return fmt.Errorf("field %s is not valid UTF-8", f.name)
		}
		spaces = spaces || s.spaces
	}
	return checkRequest(r, spaces)
}

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

// sizeRequest checks the sizes of what clients give, cuts what may be cut, and compacts what
// came as JSON. Whether params are an object is the machine's to judge: its refusal reaches
// the caller, an error here only the dead letters.
func sizeRequest(r *Request, spaces bool) error {
	if r.Type.IsCall() {
		if len(r.Definition) > MaxName || len(r.Plan) > MaxName {
			return fmt.Errorf("field definition or plan has more than %d bytes", MaxName)
		}
	}
	if r.Trace != nil {
		r.Trace = NewTrace(r.Trace.Parent, r.Trace.State)
	}
	r.Error, r.Reason, r.Stack = cut(r.Error, MaxError), cut(r.Reason, MaxError), cut(r.Stack, MaxStack)
	r.Stop, r.Caller = cut(r.Stop, MaxError), cut(r.Caller, MaxID)
	if spaces {
		r.Params, r.State = compact(r.Params), compact(r.State)
		for k := range r.Items {
			r.Items[k] = compact(r.Items[k])
		}
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

// cut makes a text what its event will have: at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	return shorten(strings.ToValidUTF8(shorten(s, n), "\uFFFD"), n)
}

func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
