package aerospike

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// settings are what one node says of itself and of the namespace, by name. What an older or a
// newer server doesn't have, is missing.
type settings struct {
	node    string
	version string
	values  map[string]string
}

// check asks every node for its settings, finds out how large a record may be, and refuses
// dangerous ones; not when they don't matter, and are not even told.
func (s *Store) check(ctx context.Context, matters bool) error {
	var nodes []settings
	err := s.again(ctx, func() (err error) {
		nodes, err = s.server.settings(ctx)
		return err
	})
	if err != nil && matters {
		return fmt.Errorf("read the namespace's settings: %w", err)
	}
	for i := range nodes {
		size := nodes[i].recordSize()
		if i == 0 || size < s.recordSize {
			s.recordSize = size
		}
	}
	if s.recordSize < minRecordSize {
		return fmt.Errorf("aerospike: max-record-size is %d; %d is the least", s.recordSize, minRecordSize)
	}
	var refused []error
	for i := range nodes {
		if err := nodes[i].check(); err != nil && matters {
			refused = append(refused, fmt.Errorf("%s: %w", nodes[i].node, err))
		}
	}
	return errors.Join(refused...)
}

// recordSize is how large a record may be. A server before 7.1 calls it write-block-size.
func (n *settings) recordSize() int {
	for _, name := range []string{"max-record-size", "storage-engine.max-record-size", "storage-engine.write-block-size", "write-block-size"} {
		if size, err := strconv.Atoi(n.values[name]); err == nil && size > 0 {
			return size
		}
	}
	return defaultRecordSize
}

// evictions are the settings that have a server remove records when it is short of something;
// 0 switches each off.
var evictions = []string{
	"evict-used-pct", "evict-indexes-memory-pct", "evict-mounts-pct", "evict-sys-memory-pct",
	"high-water-memory-pct", "high-water-disk-pct", "mounts-high-water-pct",
}

// check refuses settings with which rows vanish silently, and names them.
func (n *settings) check() error {
	switch {
	case n.version == "":
		return errors.New("aerospike: the server doesn't tell its version")
	case !since(n.version, 6):
		return fmt.Errorf("aerospike: the server is version %s; 6.0 is the least", n.version)
	case len(n.values) == 0:
		return errors.New("aerospike: the server has no such namespace")
	}
	var refused []error
	for _, name := range n.sorted() {
		short := name[strings.LastIndexByte(name, '.')+1:]
		switch value := n.values[name]; {
		case short == "default-ttl" && value != "0":
			refused = append(refused, fmt.Errorf("aerospike: default-ttl is %s: the server would let rows expire that it, or a tool, writes without a time of its own; set it to 0", value))
		case slices.Contains(evictions, short) && value != "0":
			refused = append(refused, fmt.Errorf("aerospike: %s is %s: the server would remove records when it is short of space; set it to 0", name, value))
		case short == "single-bin" && value == "true":
			refused = append(refused, errors.New("aerospike: single-bin is true: records here have several bins; set it to false"))
		}
	}
	return errors.Join(refused...)
}

func (n *settings) sorted() (names []string) {
	for name := range n.values {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// since says whether a version is at least a major one. One that can't be read is not.
func since(version string, major int) bool {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	return err == nil && n >= major
}
