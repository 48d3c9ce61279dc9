package eventlog

import "hash/maphash"

// EventDecoder decodes the events of a partition one after the other, and with less memory than
// DecodeEvent takes for each alone: what neighbours have in common, as ids, paths and names, is
// shared between them. The zero value is ready. It is for one goroutine.
type EventDecoder struct {
	seed   maphash.Seed
	names  []string // by hash; the last one that came
	starts []Start  // memory of the lists to come
}

const (
	sharedNames  = 1 << 10
	sharedStarts = 1 << 8
	fewStarts    = 4
	// longName: what is longer is not worth keeping.
	longName = 64
)

// Decode is DecodeEvent.
func (d *EventDecoder) Decode(data []byte, e *Event) error {
	*e = Event{}
	return decodeEvent(&scanner{data: data, decoder: d}, e)
}

// name is text as a string.
func (d *EventDecoder) name(text []byte) string {
	if len(text) == 0 || len(text) > longName {
		return string(text)
	}
	if d.names == nil {
		d.seed, d.names = maphash.MakeSeed(), make([]string, sharedNames)
	}
	at := &d.names[maphash.Bytes(d.seed, text)%sharedNames]
	if *at != string(text) {
		*at = string(text)
	}
	return *at
}

// room is an empty list to append to; shared: use is to be told what became of it.
func (d *EventDecoder) room() (list []Start, shared bool) {
	if d == nil {
		return []Start{}, false
	}
	if cap(d.starts)-len(d.starts) < fewStarts {
		d.starts = make([]Start, 0, sharedStarts)
	}
	at := len(d.starts)
	return d.starts[at : at : at+fewStarts], true
}

// use keeps the room that a list took.
func (d *EventDecoder) use(list []Start) []Start {
	if n := len(list); n <= fewStarts {
		d.starts = d.starts[:len(d.starts)+n]
		return list[:n:n]
	}
	return list
}
