package embedlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// A chunk is
//
//	version (1 byte) | records | trailer: count uint32, base time int64, latest time int64, crc32c uint32
//
// little endian; times in milliseconds since 1970. The latest time is that of all records of
// the partition up to the chunk's end, so that it never falls from one chunk to the next
// and a time can be searched for by halves. The checksum covers all before it. A record is
//
//	flags | varint time - base time | key | value | headers
//
// with byte strings preceded by their length as uvarint. An event's two headers are the same
// for all events but for the type, so that only the type is stored.
const (
	chunkVersion = 1
	trailerSize  = 4 + 8 + 8 + 4
)

const (
	hasKey byte = 1 << iota
	hasValue
	hasHeaders // uvarint count, then key, and value with its length + 1 (0 = nil)
	isEvent    // headers content-type: application/json and type: the byte string
)

// Bounds of a chunk. A larger transaction makes several.
const (
	chunkBytes   = 1 << 20
	chunkRecords = 4096
)

const (
	contentTypeHeader = "content-type"
	contentTypeJSON   = "application/json"
	typeHeader        = "type"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("damaged: the checksum does not match")

// builder encodes the records of one chunk.
type builder struct {
	buf      []byte
	count    int
	baseTime int64
	latest   int64
}

func (b *builder) full(more int) bool {
	return b.count >= chunkRecords || b.count > 0 && len(b.buf)+more > chunkBytes
}

func (b *builder) start(flags byte, at int64, more int) {
	if b.count == 0 {
		if cap(b.buf) == 0 {
			b.buf = make([]byte, 0, more+64)
		}
		b.buf = append(b.buf[:0], chunkVersion)
		b.baseTime, b.latest = at, at
	}
	b.count++
	b.latest = max(b.latest, at)
	b.buf = append(b.buf, flags)
	b.buf = binary.AppendVarint(b.buf, at-b.baseTime)
}

// event adds an event; at is in milliseconds.
func (b *builder) event(value []byte, t eventlog.Type, at int64) {
	b.start(hasValue|isEvent, at, len(value)+len(t))
	b.bytes(value)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(t)))
	b.buf = append(b.buf, t...)
}

// record adds a record; now stands in for a missing time.
func (b *builder) record(r *eventlog.Record, now int64) {
	at := now
	if !r.Time.IsZero() {
		at = r.Time.UnixMilli()
	}
	var flags byte
	if r.Key != nil {
		flags |= hasKey
	}
	if r.Value != nil {
		flags |= hasValue
	}
	if len(r.Headers) > 0 {
		flags |= hasHeaders
	}
	b.start(flags, at, recordSize(r))
	if r.Key != nil {
		b.bytes(r.Key)
	}
	if r.Value != nil {
		b.bytes(r.Value)
	}
	if len(r.Headers) == 0 {
		return
	}
	b.buf = binary.AppendUvarint(b.buf, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		b.buf = binary.AppendUvarint(b.buf, uint64(len(h.Key)))
		b.buf = append(b.buf, h.Key...)
		if h.Value == nil {
			b.buf = append(b.buf, 0)
			continue
		}
		b.buf = binary.AppendUvarint(b.buf, uint64(len(h.Value))+1)
		b.buf = append(b.buf, h.Value...)
	}
}

func (b *builder) bytes(v []byte) {
	b.buf = binary.AppendUvarint(b.buf, uint64(len(v)))
	b.buf = append(b.buf, v...)
}

// finish adds the trailer. latest is that of the partition before this chunk.
func (b *builder) finish(latest int64) (chunk []byte, newLatest int64) {
	latest = max(latest, b.latest)
	c := binary.LittleEndian.AppendUint32(b.buf, uint32(b.count))
	c = binary.LittleEndian.AppendUint64(c, uint64(b.baseTime))
	c = binary.LittleEndian.AppendUint64(c, uint64(latest))
	return binary.LittleEndian.AppendUint32(c, crc32.Checksum(c, castagnoli)), latest
}

// recordSize is what counts against a topic's MaxRecord.
func recordSize(r *eventlog.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

type trailer struct {
	count            int
	baseTime, latest int64
}

// readTrailer checks the chunk whole.
func readTrailer(chunk []byte) (t trailer, err error) {
	if len(chunk) < 1+trailerSize {
		return t, errDamaged
	}
	body, sum := chunk[:len(chunk)-4], chunk[len(chunk)-4:]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return t, errDamaged
	}
	if chunk[0] != chunkVersion {
		return t, errors.New("written by a newer version")
	}
	b := body[len(body)-trailerSize+4:]
	return trailer{
		count:    int(binary.LittleEndian.Uint32(b)),
		baseTime: int64(binary.LittleEndian.Uint64(b[4:])),
		latest:   int64(binary.LittleEndian.Uint64(b[12:])),
	}, nil
}

// decodeChunk appends the chunk's records from offset from on. The records alias the chunk;
// last is the offset of its last record.
func decodeChunk(records []eventlog.Record, chunk []byte, topic string, partition int32, last, from int64) ([]eventlog.Record, error) {
	t, err := readTrailer(chunk)
	if err != nil {
		return records, err
	}
	d := decoder{b: chunk[1 : len(chunk)-trailerSize]}
	offset := last - int64(t.count) + 1
	var headers []eventlog.Header // one slab for the events of the chunk
	var contentType []byte
	for ; offset <= last && d.err == nil; offset++ {
		r := eventlog.Record{Topic: topic, Partition: partition, Offset: offset}
		flags := d.byte()
		r.Time = time.UnixMilli(t.baseTime + d.varint()).UTC()
		if flags&hasKey != 0 {
			r.Key = d.bytes()
		}
		if flags&hasValue != 0 {
			r.Value = d.bytes()
		}
		switch {
		case flags&isEvent != 0:
			eventType := d.bytes()
			if offset < from {
				continue
			}
			if headers == nil {
				headers = make([]eventlog.Header, 0, 2*(last-offset+1))
				contentType = []byte(contentTypeJSON)
			}
			n := len(headers)
			headers = append(headers,
				eventlog.Header{Key: contentTypeHeader, Value: contentType},
				eventlog.Header{Key: typeHeader, Value: eventType})
			r.Headers = headers[n : n+2 : n+2]
		case flags&hasHeaders != 0:
			r.Headers = d.headers()
		}
		if offset >= from {
			records = append(records, r)
		}
	}
	if d.err == nil && len(d.b) > 0 {
		d.err = errDamaged
	}
	return records, d.err
}

// decoder reads what builder wrote; after an error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.err = errDamaged
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) headers() []eventlog.Header {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	h := make([]eventlog.Header, n)
	for i := range h {
		h[i].Key = string(d.bytes())
		if size := d.uvarint(); size > 0 {
			h[i].Value = d.take(size - 1)
		}
	}
	return h
}

func (d *decoder) fail() {
	d.b, d.err = nil, errDamaged
}
