package eventlog

import (
	"encoding/json"
	"time"
)

// The parts of events and requests. Members that are not known are dropped.

func (s *scanner) starts() []Start {
	list, shared := s.decoder.room()
	for s.array(); s.more(']'); {
		list = append(list, Start{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "path":
				v.Path = s.name()
			case "kind":
				v.Kind = s.kind()
			case "due":
				v.Due = s.int64()
			case "collect":
				v.Collect = s.bool()
			default:
				s.skip(0)
			}
		}
	}
	if shared {
		list = s.decoder.use(list)
	}
	return list
}

func (s *scanner) ends() []End {
	list := []End{}
	for s.array(); s.more(']'); {
		list = append(list, End{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "path":
				v.Path = s.name()
			case "kind":
				v.Kind = s.kind()
			case "status":
				v.Status = s.name()
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) kind() Kind {
	switch t := s.text(); string(t) {
	case "process":
		return Process
	case "execute":
		return Execute
	case "command":
		return Command
	case "listen":
		return Listen
	case "parallel":
		return Parallel
	case "decide":
		return Decide
	case "at":
		return At
	case "every":
		return Every
	case "foreach":
		return ForEach
	case "dynamic":
		return Dynamic
	case "monitor":
		return Monitor
	case "onstop":
		return OnStop
	default:
		return Kind(t)
	}
}

func (s *scanner) strings() []string {
	list := []string{}
	for s.array(); s.more(']'); {
		list = append(list, s.string())
	}
	return list
}

func (s *scanner) raws() []json.RawMessage {
	list := []json.RawMessage{}
	for s.array(); s.more(']'); {
		list = append(list, s.raw())
	}
	return list
}

func (s *scanner) taskKeys() []TaskKey {
	list := []TaskKey{}
	for s.array(); s.more(']'); {
		list = append(list, TaskKey{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "path":
				v.Path = s.name()
			case "value":
				v.Value = s.string()
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) keyRefs() []KeyRef {
	list := []KeyRef{}
	for s.array(); s.more(']'); {
		list = append(list, KeyRef{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "topic":
				v.Topic = s.name()
			case "key":
				v.Key = s.name()
			case "value":
				v.Value = s.string()
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) uint64s() []uint64 {
	list := []uint64{}
	for s.array(); s.more(']'); {
		list = append(list, s.uint64())
	}
	return list
}

func (s *scanner) outs() []Out {
	list := []Out{}
	for s.array(); s.more(']'); {
		list = append(list, Out{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "to":
				v.To = s.int32()
			case "request":
				s.request(&v.Request)
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) sent() *Sent {
	v := new(Sent)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "topic":
			v.Topic = s.string()
		case "key":
			v.Key = s.string()
		case "noKey":
			v.NoKey = s.bool()
		case "size":
			v.Size = s.int()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) trace() *Trace {
	v := new(Trace)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "traceparent":
			v.Parent = s.string()
		case "tracestate":
			v.State = s.string()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) mark() *Mark {
	v := new(Mark)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "pos":
			v.Pos = s.int64()
		case "index":
			v.Index = s.int()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) source() *Source {
	v := new(Source)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "topicId":
			v.TopicID = s.string()
		case "partition":
			v.Partition = s.int32()
		case "key":
			v.Key = s.string()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) message() *Message {
	v := new(Message)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "topic":
			v.Topic = s.string()
		case "topicId":
			v.TopicID = s.string()
		case "partition":
			v.Partition = s.int32()
		case "offset":
			v.Offset = s.int64()
		case "time":
			v.Time = s.int64()
		case "key":
			v.Key = s.base64()
		case "value":
			v.Value = s.raw()
		case "bytes":
			v.Bytes = s.base64()
		case "headers":
			v.Headers = s.headers()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) headers() []Header {
	list := []Header{}
	for s.array(); s.more(']'); {
		list = append(list, Header{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "key":
				v.Key = s.string()
			case "value":
				v.Value = s.base64()
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) record() *Record {
	v := new(Record)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "topic":
			v.Topic = s.string()
		case "partition":
			v.Partition = s.int32()
		case "offset":
			v.Offset = s.int64()
		case "time":
			v.Time = s.time()
		case "key":
			v.Key = s.base64()
		case "value":
			v.Value = s.base64()
		case "headers":
			v.Headers = s.headers()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) time() (t time.Time) {
	if s.peek() != '"' {
		s.want("a string")
	} else if v := s.raw(); s.err == nil && t.UnmarshalJSON(v) != nil {
		s.fail("a string that is no time of RFC 3339")
	}
	return t
}

func (s *scanner) position() *Position {
	v := new(Position)
	for s.object(); s.more('}'); {
		switch string(s.key()) {
		case "topicId":
			v.TopicID = s.name()
		case "offset":
			v.Offset = s.int64()
		case "term":
			v.Term = s.int32()
		case "forwarded":
			v.Forwarded = s.uint64()
		case "sources":
			v.Sources = s.sourceMarks()
		case "refused":
			v.Refused = s.refusals()
		default:
			s.skip(0)
		}
	}
	return v
}

func (s *scanner) sourceMarks() []SourceMark {
	list := []SourceMark{}
	for s.array(); s.more(']'); {
		list = append(list, SourceMark{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "topicId":
				v.TopicID = s.name()
			case "partition":
				v.Partition = s.int32()
			case "key":
				v.Key = s.name()
			case "pos":
				v.Pos = s.int64()
			case "index":
				v.Index = s.int()
			case "delivery":
				v.Delivery = s.bool()
			default:
				s.skip(0)
			}
		}
	}
	return list
}

func (s *scanner) refusals() []Refusal {
	list := []Refusal{}
	for s.array(); s.more(']'); {
		list = append(list, Refusal{})
		v := &list[len(list)-1]
		for s.object(); s.more('}'); {
			switch string(s.key()) {
			case "id":
				v.ID = s.string()
			case "request":
				v.Request = s.string()
			case "made":
				v.Made = s.int64()
			case "answer":
				v.Answer = s.string()
			case "prev":
				v.Prev = s.uint64()
			default:
				s.skip(0)
			}
		}
	}
	return list
}
