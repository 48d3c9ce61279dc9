package eventlog

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// DecodeEvent reads an encoded event into e, whose earlier contents are dropped. Members
// that it does not know are kept in e.Extra; of a member that occurs twice the last counts.
// PlanData, Params, State and other RawMessages alias data, which must not change from then
// on; strings do not.
//
// A missing v, n or type, a value of the wrong type, and anything after the object are
// errors that name the field. The error is ErrUnknownVersion when the type, or its version,
// is newer than this code; e then has what could be read.
func DecodeEvent(data []byte, e *Event) error {
	*e = Event{}
	return decodeEvent(&scanner{data: data}, e)
}

func decodeEvent(s *scanner, e *Event) error {
	s.event(e)
	s.end()
	err := s.err
	switch {
	case err != nil:
		// A newer version may give a known member another type.
		if v, t := versionOf(s.data); v > 0 && v > MaxVersion(Type(t)) && t != "" {
			e.V, e.Type = v, Type(t)
			err = unknownVersion(t, v)
		}
	case e.V < 1:
		err = errors.New("field v is missing or not positive")
	case e.Type == "":
		err = errors.New("field type is missing")
	case e.V > MaxVersion(e.Type):
		err = unknownVersion(string(e.Type), e.V)
	case e.N < 1:
		err = errors.New("field n is missing or not positive")
	}
	if err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	return nil
}

// DecodeRequest reads the value of a request's record into r and checks what depends on no
// state: version, type, ids, sizes. Members that it does not know are ignored, a member that
// is null counts as absent. A call without a request id passes: its owner derives one from
// the record's position. RawMessages are compact and may alias data; errors, reasons and
// stacks are cut to their limits. An error names the field; it is ErrUnknownVersion when the
// type, or its version, is newer than this code.
func DecodeRequest(data []byte, r *Request) error {
	*r = Request{}
	if !utf8.Valid(data) {
		return errors.New("decode request: not valid UTF-8")
	}
	s := scanner{data: data}
	s.request(r)
	s.end()
	err := s.err
	if err == nil {
		err = checkRequest(r, s.spaces)
	} else if v, t := versionOf(data); v > 0 && v > knownRequests[RequestType(t)].v && t != "" {
		err = unknownVersion(t, v)
	}
	if err != nil {
		return fmt.Errorf("decode request: %w", err)
	}
	return nil
}

func unknownVersion(t string, v int) error {
	return fmt.Errorf("type %q version %d: %w", t, v, ErrUnknownVersion)
}

// versionOf is the version and type of data that could not be decoded, zero where even they
// can't be read.
func versionOf(data []byte) (v int, t string) {
	s := scanner{data: data}
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "v":
			v = s.int()
		case "type":
			t = s.string()
		default:
			s.skip(0)
		}
	}
	if s.end(); s.err != nil {
		return 0, ""
	}
	return v, t
}

func (s *scanner) event(e *Event) {
	for s.object(); s.more('}'); {
		switch k := s.key(); string(k) {
		case "v":
			e.V = s.int()
		case "n":
			e.N = s.uint64()
		case "type":
			e.Type = s.eventType()
		case "at":
			e.At = s.int64()
		case "id":
			e.ID = s.name()
		case "seq":
			e.Seq = s.uint64()
		case "run":
			e.Run = s.uint64()
		case "prev":
			e.Prev = s.uint64()
		case "path":
			e.Path = s.name()
		case "act":
			e.Act = s.uint64()
		case "attempt":
			e.Attempt = s.int()
		case "definition":
			e.Definition = s.name()
		case "plan":
			e.Plan = s.name()
		case "planData":
			e.PlanData = s.raw()
		case "params":
			e.Params = s.raw()
		case "keys":
			e.Keys = s.taskKeys()
		case "evaluate":
			e.Evaluate = s.bool()
		case "starts":
			e.Starts = s.starts()
		case "ends":
			e.Ends = s.ends()
		case "choice":
			e.Choice = s.name()
		case "choices":
			e.Choices = s.strings()
		case "items":
			e.Items = s.raws()
		case "due":
			e.Due = s.int64()
		case "error":
			e.Error = s.string()
		case "stack":
			e.Stack = s.string()
		case "reason":
			e.Reason = s.string()
		case "request":
			e.Request = s.string()
		case "made":
			e.Made = s.int64()
		case "caller":
			e.Caller = s.string()
		case "trace":
			e.Trace = s.trace()
		case "sent":
			e.Sent = s.sent()
		case "subs":
			e.Subs = s.keyRefs()
		case "unsubs":
			e.Unsubs = s.keyRefs()
		case "back":
			e.Back = s.uint64s()
		case "state":
			e.State = s.raw()
		case "held":
			e.Held = new(Request)
			s.request(e.Held)
		case "topic":
			e.Topic = s.name()
		case "key":
			e.Key = s.name()
		case "value":
			e.Value = s.string()
		case "msg":
			e.Msg = s.uint64()
		case "message":
			e.Message = s.message()
		case "expires":
			e.Expires = s.int64()
		case "sole":
			e.Sole = s.bool()
		case "local":
			e.Local = s.bool()
		case "again":
			e.Again = s.bool()
		case "chosen":
			e.Chosen = s.int()
		case "kept":
			e.Kept = s.int()
		case "after":
			e.After = s.uint64()
		case "until":
			e.Until = s.uint64()
		case "from":
			e.From = s.int32()
		case "upto":
			e.Upto = s.mark()
		case "worker":
			e.Worker = s.string()
		case "address":
			e.Address = s.string()
		case "out":
			e.Out = s.outs()
		case "pos":
			e.Pos = s.position()
		default:
			name := string(k)
			e.Extra = append(e.Extra, Field{Name: name, Value: s.raw()})
		}
	}
}

func (s *scanner) request(r *Request) {
	for s.object(); s.more('}'); {
		k := s.key()
		if s.null() {
			continue
		}
		switch string(k) {
		case "v":
			r.V = s.int()
		case "type":
			r.Type = s.requestType()
		case "request":
			r.Request = s.string()
		case "made":
			r.Made = s.int64()
		case "caller":
			r.Caller = s.string()
		case "id":
			r.ID = s.string()
		case "run":
			r.Run = s.uint64()
		case "path":
			r.Path = s.string()
		case "act":
			r.Act = s.uint64()
		case "attempt":
			r.Attempt = s.int()
		case "definition":
			r.Definition = s.string()
		case "plan":
			r.Plan = s.string()
		case "params":
			r.Params = s.raw()
		case "base":
			r.Base = s.uint64()
		case "keys":
			r.Keys = s.taskKeys()
		case "hasKeys":
			r.HasKeys = s.bool()
		case "reason":
			r.Reason = s.string()
		case "trace":
			r.Trace = s.trace()
		case "state":
			r.State = s.raw()
		case "ok":
			r.OK = s.bool()
		case "more":
			r.More = s.bool()
		case "choice":
			r.Choice = s.string()
		case "choices":
			r.Choices = s.strings()
		case "items":
			r.Items = s.raws()
		case "stop":
			r.Stop = s.string()
		case "error":
			r.Error = s.string()
		case "stack":
			r.Stack = s.string()
		case "terminal":
			r.Terminal = s.bool()
		case "retryAfter":
			r.RetryAfter = s.int64()
		case "jitter":
			r.Jitter = s.float64()
		case "record":
			r.Record = s.record()
		case "source":
			r.Source = s.source()
		case "mark":
			r.Mark = s.mark()
		case "at":
			r.At = s.int64()
		case "topic":
			r.Topic = s.string()
		case "key":
			r.Key = s.string()
		case "value":
			r.Value = s.string()
		case "msg":
			r.Msg = s.uint64()
		case "message":
			r.Message = s.message()
		case "expires":
			r.Expires = s.int64()
		case "ttl":
			r.TTL = s.int64()
		case "sole":
			r.Sole = s.bool()
		case "oldest":
			r.Oldest = s.bool()
		case "from":
			r.From = s.int32()
		case "upto":
			r.Upto = s.mark()
		default:
			s.skip(0)
		}
	}
}

// eventType is a known type's constant, so that it costs no memory.
func (s *scanner) eventType() Type {
	t := s.text()
	if k, ok := knownEvents[string(t)]; ok {
		return k.typ
	}
	return Type(t)
}

func (s *scanner) requestType() RequestType {
	t := s.text()
	if k, ok := knownRequests[RequestType(t)]; ok {
		return k.typ
	}
	return RequestType(t)
}
