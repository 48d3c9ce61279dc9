package redis

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/godagger/dagger/projection"
)

// Names of keys. <tag> is {application:partition}, so that a partition is in one slot of a
// cluster; kinds and buckets are two hexadecimal digits. <gen> is the partition's generation:
// nothing at first, and g1:, g2: … once it was replaced by what was built beside it. Every name is
// known without asking the server: nothing here looks for keys.
//
//	<prefix>:store                hash: whose store this is
//	<prefix>:<tag>:w              hash: epoch, generation, watermark, and under #<kind>… the number
//	                              of rows of each key below: a missing key is noticed
//	<prefix>:<tag>:s              hash: the same of what is built beside the partition
//	<prefix>:<tag>:<gen>10:<b>    hash: records of kind 10 of a bucket
//	<prefix>:<tag>:<gen><kind>    sorted set: keys of entries, all with score 0, so in bytewise order
//	<prefix>:<tag>:<gen><kind>v   hash: values of those entries that have one
//	<prefix>:<tag>:<gen>50        hash: counters
type names struct {
	prefix   string
	identity string
	app      string
}

func newNames(prefix, app string) names {
	return names{prefix: prefix, identity: prefix + ":store", app: tagText(app)}
}

// tagText writes an application's name so that it can't end the tag.
func tagText(app string) string {
	var b strings.Builder
	for i := range len(app) {
		switch c := app[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (n names) base(partition int32) string {
	return fmt.Sprintf("%s:{%s:%d}:", n.prefix, n.app, partition)
}

func (n names) watermark(partition int32) string { return n.base(partition) + "w" }

// staged is the watermark of what is built beside a partition.
func (n names) staged(partition int32) string { return n.base(partition) + "s" }

// layout is how the rows of a kind are kept.
type layout int

const (
	records  layout = iota // hashes, by bucket
	entries                // a sorted set and a hash of values
	counters               // one hash
)

func layoutOf(kind projection.Kind) layout {
	switch kind {
	case projection.KindInstance:
		return records
	case projection.KindCount:
		return counters
	}
	return entries
}

// container is a key that holds rows; sets are sorted sets, the others hashes.
type container struct {
	name string // without the base
	set  bool
}

const hex = "0123456789abcdef"

func kindText(kind projection.Kind) string { return string([]byte{hex[kind>>4], hex[kind&15]}) }

// bucketNames are the containers of a record kind.
var bucketNames = func() (list [maxBuckets]string) {
	for b := range list {
		list[b] = kindText(projection.KindInstance) + ":" + kindText(projection.Kind(b))
	}
	return list
}()

// bucketOf is the bucket of a record.
func bucketOf(key []byte, buckets int) int {
	h := fnv.New32a()
	h.Write(key)
	return int(h.Sum32() % uint32(buckets))
}

// allContainers are all that a partition can have, whatever its number of buckets.
var allContainers, allTypes = func() (list []container, types string) {
	for _, name := range bucketNames {
		list = append(list, container{name, false})
	}
	for kind := projection.MinKind; ; kind++ {
		switch layoutOf(kind) {
		case entries:
			list = append(list, container{kindText(kind), true}, container{kindText(kind) + "v", false})
		case counters:
			list = append(list, container{kindText(kind), false})
		}
		if kind == 0xFF {
			break
		}
	}
	for _, c := range list {
		types += c.letter()
	}
	return list, types
}()

func (c container) letter() string {
	if c.set {
		return "z"
	}
	return "h"
}

// containersOf returns the names of all containers that a generation can have behind those
// that are given; allTypes are their types.
func containersOf(base string, keys ...string) []string {
	keys = slices.Grow(keys, len(allContainers))
	for _, c := range allContainers {
		keys = append(keys, base+c.name)
	}
	return keys
}
