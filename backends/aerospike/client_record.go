package aerospike

import (
	"context"
	"fmt"
	"slices"
	"sync"

	as "github.com/aerospike/aerospike-client-go/v7"
)

func (c *cluster) read(ctx context.Context, reads []read) ([]*record, error) {
	records := make([]as.BatchRecordIfc, len(reads))
	for i := range reads {
		key, err := c.key(reads[i].key)
		if err != nil {
			return nil, err
		}
		records[i] = batchRead(key, &reads[i])
	}
	codes, err := c.batch(ctx, records)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]*record, len(reads))
	for i, code := range codes {
		switch code {
		case codeOK:
			if out[i], err = recordOf(records[i].BatchRec().Record); err != nil {
				return nil, fmt.Errorf("aerospike: read %.60q: %w", reads[i].key, err)
			}
		case codeNotFound:
		default:
			if code.inDoubt() || code.passes() {
				return nil, fmt.Errorf("%w: read: code %d: %w", errPasses, code, err)
			}
			return nil, &errCode{code, reads[i].key}
		}
	}
	return out, nil
}

// batchRead reads what a read wants.
func batchRead(key *as.Key, r *read) as.BatchRecordIfc {
	switch {
	case r.bins != nil:
		return as.NewBatchRead(nil, key, r.bins)
	case r.keys != nil:
		keys := make([]any, len(r.keys))
		for i, k := range r.keys {
			keys[i] = k
		}
		return as.NewBatchReadOps(nil, key, as.MapGetByKeyListOp(binEntries, keys, as.MapReturnType.KEY_VALUE))
	case r.span != nil:
		var end any
		if r.span.to != nil {
			end = *r.span.to
		}
		return as.NewBatchReadOps(nil, key, as.MapGetByKeyRangeOp(binEntries, r.span.from, end, as.MapReturnType.KEY_VALUE))
	}
	return as.NewBatchReadHeader(nil, key)
}

// recordOf reads what a server has sent.
func recordOf(from *as.Record) (*record, error) {
	r := &record{bins: map[string]any{}}
	if from == nil {
		return r, nil
	}
	for name, value := range from.Bins {
		switch v := value.(type) {
		case int:
			r.bins[name] = int64(v)
		case string, []byte:
			r.bins[name] = v
		default:
			entries, err := entriesOf(v)
			if err != nil {
				return nil, fmt.Errorf("bin %s: %w", name, err)
			}
			r.entries = entries
		}
	}
	return r, nil
}

// entriesOf reads a map, or a part of one.
func entriesOf(value any) ([]entry, error) {
	var list []entry
	add := func(key, value any) error {
		k, isText := key.(string)
		v, isBytes := value.([]byte)
		if !isText || !isBytes {
			return fmt.Errorf("an entry is %T: %T", key, value)
		}
		list = append(list, entry{k, v})
		return nil
	}
	switch m := value.(type) {
	case nil:
	case []as.MapPair:
		for _, p := range m {
			if err := add(p.Key, p.Value); err != nil {
				return nil, err
			}
		}
	case map[any]any:
		for k, v := range m {
			if err := add(k, v); err != nil {
				return nil, err
			}
		}
	case []any: // none
		if len(m) > 0 {
			return nil, fmt.Errorf("it is a list of %d", len(m))
		}
	default:
		return nil, fmt.Errorf("it is %T", value)
	}
	slices.SortFunc(list, byKey)
	return list, nil
}

// pagePolicy keeps the keys of a map in order.
var pagePolicy = as.NewMapPolicy(as.MapOrder.KEY_ORDERED, as.MapWriteMode.UPDATE)

// policies are those of changes with the same conditions: the client compares them by address.
type policies map[policyKey]*as.BatchWritePolicy

type policyKey struct {
	mode         mode
	older, token int64
}

func (p policies) of(c *change) *as.BatchWritePolicy {
	key := policyKey{c.mode, c.older, c.token}
	if p[key] == nil {
		policy := as.NewBatchWritePolicy()
		policy.Expiration = as.TTLDontExpire
		switch c.mode {
		case create:
			policy.RecordExistsAction = as.CREATE_ONLY
		case update:
			policy.RecordExistsAction = as.UPDATE_ONLY
		}
		switch {
		case c.older != 0:
			policy.FilterExpression = as.ExpLess(as.ExpIntBin(binN), as.ExpIntVal(c.older))
		case c.token != 0:
			policy.FilterExpression = as.ExpEq(as.ExpIntBin(binToken), as.ExpIntVal(c.token))
		}
		p[key] = policy
	}
	return p[key]
}

var deletePolicy = sync.OnceValue(as.NewBatchDeletePolicy)

func (c *cluster) change(ctx context.Context, changes []change) ([]result, error) {
	records := make([]as.BatchRecordIfc, len(changes))
	shared := policies{}
	for i := range changes {
		x := &changes[i]
		key, err := c.key(x.key)
		if err != nil {
			return nil, err
		}
		if x.mode == remove {
			records[i] = as.NewBatchDelete(deletePolicy(), key)
			continue
		}
		records[i] = as.NewBatchWrite(shared.of(x), key, operations(x)...)
	}
	codes, err := c.batch(ctx, records)
	results := make([]result, len(changes))
	for i := range results {
		results[i].code = codeNoResponse
		if codes == nil {
			continue
		}
		if results[i].code = codes[i]; codes[i] == codeOK && changes[i].mode != remove {
			if err := results[i].take(&changes[i], records[i].BatchRec().Record); err != nil {
				return nil, fmt.Errorf("aerospike: change %.60q: %w", changes[i].key, err)
			}
		}
	}
	return results, err
}

// operations are those of a change, all made in one step.
func operations(c *change) (list []*as.Operation) {
	if c.wantBlob {
		list = append(list, as.GetBinOp(binBlob))
	}
	for _, b := range c.put {
		list = append(list, as.PutOp(as.NewBin(b.name, b.value)))
	}
	if len(c.del) > 0 {
		keys := make([]any, len(c.del))
		for i, k := range c.del {
			keys[i] = k
		}
		taken := as.MapReturnType.NONE
		if c.wantOld {
			taken = as.MapReturnType.KEY_VALUE
		}
		list = append(list, as.MapRemoveByKeyListOp(binEntries, keys, taken))
	}
	if c.cut != nil {
		list = append(list, as.MapRemoveByKeyRangeOp(binEntries, *c.cut, nil, as.MapReturnType.NONE))
	}
	if len(c.add) > 0 {
		items := make(map[any]any, len(c.add))
		keys := make([]any, len(c.add))
		for i, e := range c.add {
			items[e.key], keys[i] = e.value, e.key
		}
		if c.wantOld {
			list = append(list, as.MapGetByKeyListOp(binEntries, keys, as.MapReturnType.KEY_VALUE))
		}
		list = append(list, as.MapPutItemsOp(pagePolicy, binEntries, items))
	}
	if c.isPage() {
		list = append(list, as.MapSizeOp(binEntries))
	}
	return list
}

func (c *change) isPage() bool { return c.cut != nil || len(c.del)+len(c.add) > 0 }

// take reads what a change has returned: of a page a list, one for each operation, with the
// number of entries at its end.
func (r *result) take(c *change, from *as.Record) error {
	if from == nil {
		return nil
	}
	if c.wantBlob {
		switch v := from.Bins[binBlob].(type) {
		case []byte:
			r.blob = v
		case as.OpResults:
			for _, x := range v {
				if b, ok := x.([]byte); ok {
					r.blob = b
					break
				}
			}
		}
	}
	if !c.isPage() {
		return nil
	}
	list := []any{from.Bins[binEntries]}
	switch v := from.Bins[binEntries].(type) {
	case as.OpResults:
		list = v
	case []any:
		list = v
	}
	for _, x := range list {
		if n, ok := x.(int); ok {
			r.size = n // of the last one
			continue
		}
		if !c.wantOld {
			continue
		}
		old, err := entriesOf(x)
		if err != nil {
			return err
		}
		r.old = append(r.old, old...)
	}
	return nil
}
