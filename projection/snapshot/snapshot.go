// Package snapshot keeps copies of a store's partitions in a bucket: a directory, or whatever
// has a driver. A copy is the sorted rows that Dump gives, so that it can be restored into any
// backend, whichever it was taken from.
//
// A snapshot is two objects. Those of partition 3 of application shop as of event 90317 are
//
//	shop/p-00003/00000000000000090317-1f0c2a9b.rows   the rows, compressed with zstd
//	shop/p-00003/00000000000000090317-1f0c2a9b.json   the manifest, written last
//
// where the last part of the names tells logs apart. A snapshot without a manifest does not
// count; one whose rows do not have the manifest's checksum is ErrDamaged.
package snapshot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/godagger/dagger/projection"
)

// ErrDamaged: a snapshot is not what was written.
var ErrDamaged = errors.New("snapshot: damaged")

// version is that of manifest and rows.
const version = 1

// Manifest describes a snapshot.
type Manifest struct {
	Version    int       `json:"version"`
	App        string    `json:"app"`
	Partitions int32     `json:"partitions"`
	Partition  int32     `json:"partition"`
	N          uint64    `json:"n"`            // last event folded
	From       uint64    `json:"from"`         // the events from this one on are needed beside it
	Offset     int64     `json:"offset"`       // of event N in the events topic
	LogID      string    `json:"log_id"`       // of the events topic
	Sum        uint64    `json:"sum,string"`   // checksum of event N
	Epoch      uint64    `json:"epoch,string"` // of the owner
	Rows       int64     `json:"rows"`
	Bytes      int64     `json:"bytes"`  // of the object
	SHA256     string    `json:"sha256"` // of the object
	Object     string    `json:"object"`
	Taken      time.Time `json:"taken"`
}

// Watermark is where a store stands that has been restored from the snapshot.
func (m *Manifest) Watermark() projection.Watermark {
	return projection.Watermark{N: m.N, Epoch: m.Epoch, Offset: m.Offset, LogID: m.LogID, Sum: m.Sum}
}

func folder(app string, partition int32) string { return fmt.Sprintf("%s/p-%05d/", app, partition) }

const (
	rowsSuffix     = ".rows"
	manifestSuffix = ".json"
)

func (m *Manifest) base() string {
	log := sha256.Sum256([]byte(m.LogID))
	return folder(m.App, m.Partition) + fmt.Sprintf("%020d-%x", m.N, log[:4])
}

// Take copies a partition. from is told every row and says, when all have come, with which
// event the rest of the log begins that is needed beside the snapshot. The rows are spooled to a temporary file
// first, so that a slow bucket holds up nobody. A partition that is empty is not copied: the
// manifest's N is 0 then.
func Take(ctx context.Context, b Bucket, id projection.Identity, partition int32, v projection.View, from func(projection.Row), needs func(projection.Watermark) uint64) (m Manifest, err error) {
	m = Manifest{Version: version, App: id.App, Partitions: id.Partitions, Partition: partition}
	spool, err := os.CreateTemp("", "dagger-snapshot-*")
	if err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, spool.Close(), os.Remove(spool.Name())) }()
	w, err := newWriter(spool)
	if err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	at, err := projection.DumpAt(ctx, v, func(r projection.Row) error {
		from(r)
		return w.row(r)
	})
	if err = errors.Join(err, w.close()); err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	m.N, m.Epoch, m.Offset, m.LogID, m.Sum = at.N, at.Epoch, at.Offset, at.LogID, at.Sum
	if m.N == 0 {
		return m, nil
	}
	m.From, m.Rows, m.Bytes, m.SHA256, m.Taken = needs(at), w.rows, w.size, hex.EncodeToString(w.sum.Sum(nil)), time.Now().UTC()
	m.Object = m.base() + rowsSuffix
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	if err := b.Put(ctx, m.Object, spool); err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	if err := b.Put(ctx, m.base()+manifestSuffix, bytes.NewReader(append(raw, '\n'))); err != nil {
		return m, fmt.Errorf("take snapshot: %w", err)
	}
	return m, nil
}

// List returns the snapshots of a partition that belong to a log ("" = any), the newest first.
// What can't be read as a manifest is left out and told in damaged.
func List(ctx context.Context, b Bucket, id projection.Identity, partition int32, logID string) (list []Manifest, damaged []string, err error) {
	names, err := b.List(ctx, folder(id.App, partition))
	if err != nil {
		return nil, nil, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, manifestSuffix) {
			continue
		}
		m, err := readManifest(ctx, b, name)
		switch {
		case errors.Is(err, ErrDamaged):
			damaged = append(damaged, name)
		case err != nil:
			return nil, nil, fmt.Errorf("list snapshots: %w", err)
		case m.App != id.App || m.Partitions != id.Partitions || m.Partition != partition:
			damaged = append(damaged, name)
		case logID == "" || m.LogID == logID:
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b Manifest) int {
		if a.N > b.N {
			return -1
		}
		return 1
	})
	return list, damaged, nil
}

func readManifest(ctx context.Context, b Bucket, name string) (m Manifest, err error) {
	r, err := b.Get(ctx, name)
	if err != nil {
		return m, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err = errors.Join(err, r.Close()); err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%w: %s is no manifest", ErrDamaged, name)
	}
	if m.Version > version {
		return m, fmt.Errorf("%w: %s has version %d, this program knows %d", ErrDamaged, name, m.Version, version)
	}
	if m.N == 0 || m.Object != m.base()+rowsSuffix || name != m.base()+manifestSuffix {
		return m, fmt.Errorf("%w: %s is not about what its name says", ErrDamaged, name)
	}
	return m, nil
}

// Check reads a snapshot whole and compares its checksum; ErrDamaged when it differs.
func Check(ctx context.Context, b Bucket, m Manifest) error {
	r, err := b.Get(ctx, m.Object)
	if err != nil {
		return missing(err, m)
	}
	sum := sha256.New()
	n, err := io.Copy(sum, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read %s: %w", m.Object, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != m.SHA256 || n != m.Bytes {
		return fmt.Errorf("%w: %s has %d bytes with sha256 %s, its manifest says %d with %s", ErrDamaged, m.Object, n, got, m.Bytes, m.SHA256)
	}
	return nil
}

// Read calls f with the rows of a snapshot in order. f may keep them. An error of it, or
// ErrDamaged, may come after rows have been given: Check first where that matters.
func Read(ctx context.Context, b Bucket, m Manifest, f func(projection.Row) error) (err error) {
	object, err := b.Get(ctx, m.Object)
	if err != nil {
		return missing(err, m)
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	z, err := zstd.NewReader(object, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		return fmt.Errorf("read %s: %w", m.Object, err)
	}
	defer z.Close()
	if err := readRows(bufio.NewReaderSize(z, 256<<10), m.Rows, f); err != nil {
		return fmt.Errorf("read %s: %w", m.Object, err)
	}
	return nil
}

// Delete removes a snapshot: its manifest first, so that it never counts without its rows.
func Delete(ctx context.Context, b Bucket, m Manifest) error {
	if err := b.Delete(ctx, m.base()+manifestSuffix); err != nil {
		return err
	}
	return b.Delete(ctx, m.Object)
}

func missing(err error, m Manifest) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrDamaged, m.Object)
	}
	return err
}

// The rows are magic, then for each a kind, key and value, each of the two behind its length as
// uvarint, then a zero byte and the number of rows as uvarint.
var magic = []byte("dagger rows 1\n")

// maxPart is the longest key or value that is believed.
const maxPart = 1 << 30

type writer struct {
	z    *zstd.Encoder
	buf  *bufio.Writer
	sum  hash.Hash
	size int64
	rows int64
	head []byte
}

// counted counts and sums what is written.
type counted struct {
	w  io.Writer
	to *writer
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.to.sum.Write(p[:n])
	c.to.size += int64(n)
	return n, err
}

func newWriter(to io.Writer) (*writer, error) {
	w := &writer{sum: sha256.New()}
	z, err := zstd.NewWriter(counted{to, w}, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, err
	}
	w.z, w.buf = z, bufio.NewWriterSize(z, 256<<10)
	_, err = w.buf.Write(magic)
	return w, err
}

func (w *writer) row(r projection.Row) error {
	w.rows++
	w.head = binary.AppendUvarint(append(w.head[:0], byte(r.Kind)), uint64(len(r.Key)))
	w.head = append(w.head, r.Key...)
	w.head = binary.AppendUvarint(w.head, uint64(len(r.Value)))
	if _, err := w.buf.Write(w.head); err != nil {
		return err
	}
	_, err := w.buf.Write(r.Value)
	return err
}

func (w *writer) close() error {
	_, err := w.buf.Write(binary.AppendUvarint([]byte{0}, uint64(w.rows)))
	return errors.Join(err, w.buf.Flush(), w.z.Close())
}

func readRows(r *bufio.Reader, want int64, f func(projection.Row) error) error {
	bad := func(err error) error {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	first := make([]byte, len(magic))
	if _, err := io.ReadFull(r, first); err != nil {
		return bad(err)
	}
	if !bytes.Equal(first, magic) {
		return fmt.Errorf("%w: these are no rows, or of a newer version", ErrDamaged)
	}
	part := func() ([]byte, error) {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		if n > maxPart {
			return nil, fmt.Errorf("a part of %d bytes", n)
		}
		b := make([]byte, n)
		_, err = io.ReadFull(r, b)
		return b, err
	}
	for rows := int64(0); ; rows++ {
		kind, err := r.ReadByte()
		if err != nil {
			return bad(err)
		}
		if kind == 0 {
			n, err := binary.ReadUvarint(r)
			if err != nil {
				return bad(err)
			}
			if int64(n) != rows || rows != want {
				return fmt.Errorf("%w: %d rows instead of %d", ErrDamaged, rows, want)
			}
			return nil
		}
		row := projection.Row{Kind: projection.Kind(kind)}
		if row.Key, err = part(); err != nil {
			return bad(err)
		}
		if row.Value, err = part(); err != nil {
			return bad(err)
		}
		if err := f(row); err != nil {
			return err
		}
	}
}
