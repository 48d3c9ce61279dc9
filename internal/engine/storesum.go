package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// StoreSum is a checksum of the rows of a store's partition, which is the same for every
// backend, and the event as of which they are. It may be worked on. The index of blocks is left out:
// stores that are alike in all else may have more or less of it.
func StoreSum(ctx context.Context, store projection.Store, partition int32) (sum [32]byte, at uint64, err error) {
	v, err := store.View(ctx, partition)
	if err != nil {
		return sum, 0, fmt.Errorf("read partition %d of the store: %w", partition, err)
	}
	defer v.Close()
	h := sha256.New()
	var head []byte
	w, err := projection.DumpAt(ctx, v, func(r projection.Row) error {
		if r.Kind == projection.KindBlock {
			return nil
		}
		head = binary.AppendUvarint(append(head[:0], byte(r.Kind)), uint64(len(r.Key)))
		head = append(head, r.Key...)
		head = binary.AppendUvarint(head, uint64(len(r.Value)))
		h.Write(head)
		h.Write(r.Value)
		return nil
	})
	if err != nil {
		return sum, 0, fmt.Errorf("read partition %d of the store: %w", partition, err)
	}
	return [32]byte(h.Sum(nil)), w.N, nil
}
