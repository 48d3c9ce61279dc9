package eventlog

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The vectors of Kafka's own UtilsTest.testMurmur2.
func TestMurmur2Vectors(t *testing.T) {
	for _, c := range []struct {
		key  string
		want int32
	}{
		{"21", -973932308},
		{"foobar", -790332482},
		{"a-little-bit-long-string", -985981536},
		{"a-little-bit-longer-string", -1486304829},
		{"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
		{"abc", 479470107},
	} {
		if got := int32(murmur2(c.key)); got != c.want {
			t.Errorf("murmur2(%q) = %d, want %d", c.key, got, c.want)
		}
	}
}

func TestPartitionOfKeyIsThatOfKafkaClients(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 0))
	theirs := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for i := range 2000 {
		key := make([]byte, rnd.IntN(40))
		for j := range key {
			key[j] = byte(rnd.Uint32())
		}
		p := 1 + rnd.IntN(64)
		want := theirs.Partition(&kgo.Record{Key: key}, p)
		if got := PartitionOfKey(string(key), int32(p)); int(got) != want {
			t.Fatalf("seed %d, key %d %x of %d partitions: partition %d, franz-go says %d", seed, i, key, p, got, want)
		}
	}
}

func TestPartitionKeyTagRule(t *testing.T) {
	for _, c := range []struct{ id, want string }{
		{"order-7", "order-7"},
		{"{order-7}", "order-7"},
		{"{order-7}/audit", "order-7"},
		{"a{b}c", "b"},
		{"a{b}{c}", "b"},   // the first tag counts
		{"{a{b}c}", "a{b"}, // from the first { to the first } after it
		{"a}b{c}", "c"},    // a } before it does not end it
		{"}{", "}{"},
		{"{}", "{}"}, // an empty tag is none
		{"a{}b", "a{}b"},
		{"a{}{b}", "a{}{b}"}, // also when another follows
		{"a{b", "a{b"},
		{"a}b", "a}b"},
		{"{ }", " "},
		{"{ü}x", "ü"},
		{"", ""},
	} {
		if got := PartitionKey(c.id); got != c.want {
			t.Errorf("PartitionKey(%q) = %q, want %q", c.id, got, c.want)
		}
		if got, want := PartitionOf(c.id, 16), PartitionOfKey(c.want, 16); got != want {
			t.Errorf("PartitionOf(%q) = %d, want %d", c.id, got, want)
		}
	}
}

func TestPartitionsAreUsedEvenly(t *testing.T) {
	const ids, p = 16000, 16
	var count [p]int
	for i := range ids {
		count[PartitionOf(fmt.Sprintf("order-%d", i), p)]++
	}
	for i, n := range count {
		if n < ids/p*3/4 || n > ids/p*5/4 {
			t.Errorf("partition %d has %d of %d ids", i, n, ids)
		}
	}
}
