package redis

import (
	"context"
	"fmt"
	"strconv"

	"github.com/godagger/dagger/projection"
)

// Apply implements projection.Partition: one call, whatever the size of the batch, since only a
// script is atomic. The server does nothing else while it runs.
func (h *handle) Apply(ctx context.Context, b projection.Batch) error {
	if err := h.apply(ctx, b); err != nil {
		return h.fail("apply to", err)
	}
	return nil
}

func (h *handle) apply(ctx context.Context, b projection.Batch) error {
	if err := b.Check(); err != nil {
		return err
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	reply, _, err := h.call(ctx, applyScript, func(base string) ([]string, []any, error) {
		keys, args := h.s.encode(base, b)
		if len(keys)+len(args) > maxArguments {
			return nil, nil, fmt.Errorf("%w: a batch of %d rows has %d arguments, Redis takes %d in a call",
				projection.ErrTooLarge, len(b.Put)+len(b.Del)+len(b.Add), len(args), maxArguments)
		}
		return keys, args, nil
	})
	if err != nil {
		return err
	}
	if text(first(reply)) != "have" {
		return refusal(reply, b.New.Epoch)
	}
	have, err := watermarkOf(reply[1:])
	if err != nil {
		return err
	}
	fits, err := b.Settles(have)
	if fits {
		return fmt.Errorf("redis: the script refuses a batch that fits event %d", have.N)
	}
	return err
}

// group is what a batch changes in one place: a bucket, or an entry kind.
type group struct {
	container int   // its number in the script's call
	put       []any // key, value, …
	bare      []any // keys without value
	del       []any // keys
}

// groups are those of one batch, in the order in which they were met.
type groups struct {
	base   string
	places map[int]*group // by kind, buckets behind the kinds
	order  []*group
	keys   []string // of the script's call
	types  []byte
}

func (g *groups) at(place int, containers ...container) *group {
	x := g.places[place]
	if x == nil {
		x = &group{container: len(g.types) + 1}
		for _, c := range containers {
			g.keys = append(g.keys, g.base+c.name)
			g.types = append(g.types, c.letter()...)
		}
		g.places[place] = x
		g.order = append(g.order, x)
	}
	return x
}

// row is the place of a row. set: the rows there are entries.
func (g *groups) row(r *projection.Row, buckets int) (x *group, set bool) {
	if layoutOf(r.Kind) == records {
		b := bucketOf(r.Key, buckets)
		return g.at(256+b, container{bucketNames[b], false}), false
	}
	if x := g.places[int(r.Kind)]; x != nil {
		return x, true
	}
	name := kindText(r.Kind)
	return g.at(int(r.Kind), container{name, true}, container{name + "v", false}), true
}

// encode makes keys and arguments of the script's call, with the room that call fills.
func (s *Store) encode(base string, b projection.Batch) (keys []string, args []any) {
	g := groups{base: base, places: map[int]*group{}}
	g.keys = append(g.keys, "")
	var e encoder
	rows := 0
	for i := range b.Put {
		r := &b.Put[i]
		x, set := g.row(r, s.buckets)
		if set && len(r.Value) == 0 {
			x.bare = append(x.bare, r.Key)
		} else {
			x.put = append(x.put, r.Key, e.encode(r.Value))
		}
		rows += 2
	}
	for i := range b.Del {
		x, _ := g.row(&b.Del[i], s.buckets)
		x.del = append(x.del, b.Del[i].Key)
		rows++
	}
	counts := counterChanges(b.Add)
	var counter *group
	if len(counts) > 0 {
		counter = g.at(int(projection.KindCount), container{kindText(projection.KindCount), false})
	}
	args = make([]any, 2, 18+rows+9*len(g.order)+len(counts))
	args = append(args, strconv.FormatUint(b.Expected, 10), strconv.FormatUint(b.New.N, 10), epochText(b.New.Epoch),
		b.New.Offset, strconv.FormatUint(b.New.Sum, 10), b.New.LogID, g.types)
	operation := func(letter string, x *group, list []any) {
		if len(list) > 0 {
			args = append(append(args, letter, x.container, len(list)), list...)
		}
	}
	for _, x := range g.order {
		switch {
		case x == counter:
			operation("I", x, counts)
		case g.types[x.container-1] == 'z':
			operation("E", x, x.bare)
			operation("V", x, x.put)
			operation("X", x, x.del)
		default:
			operation("S", x, x.put)
			operation("D", x, x.del)
		}
	}
	return g.keys, args
}

// counterChanges sums up what is added to each counter: name, change, …
func counterChanges(deltas []projection.Delta) []any {
	sums := map[string]int64{}
	var order []string
	for _, d := range deltas {
		if _, known := sums[string(d.Key)]; !known {
			order = append(order, string(d.Key))
		}
		sums[string(d.Key)] += d.N
	}
	var list []any
	for _, key := range order {
		if sums[key] != 0 {
			list = append(list, key, sums[key])
		}
	}
	return list
}
