package aerospike

import (
	"context"
	"errors"
)

// blob is bytes that never change, in pieces as large as a record may be. Its id is drawn by
// who writes it, so that two writers never write the same one, and nobody reads it before it is
// named by a mark, a page or a row.
type blob struct {
	id   int64
	size int
}

// errMissing: a record isn't there that should be. Either the partition has moved on, or it is
// lost.
var errMissing = errors.New("records are missing")

func (s *Store) pieces(b blob) int { return max(1, (b.size+s.pieceSize-1)/s.pieceSize) }

// newBlob makes a blob, and the changes that write it.
func (s *Store) newBlob(at space, content []byte) (blob, []change) {
	b := blob{id: newToken(), size: len(content)}
	var changes []change
	for k := range s.pieces(b) {
		piece := content[k*s.pieceSize : min(len(content), (k+1)*s.pieceSize)]
		changes = append(changes, change{key: at.piece(b.id, k), put: at.bins(bin{binValue, piece})})
	}
	return b, changes
}

// dropBlob makes the changes that remove it.
func (s *Store) dropBlob(at space, b blob) (changes []change) {
	for k := range s.pieces(b) {
		changes = append(changes, change{key: at.piece(b.id, k), mode: remove})
	}
	return changes
}

// readBlobs reads blobs whole. errMissing: one is not all there.
func (s *Store) readBlobs(ctx context.Context, at space, blobs []blob) ([][]byte, error) {
	var reads []read
	for _, b := range blobs {
		for k := range s.pieces(b) {
			reads = append(reads, read{key: at.piece(b.id, k), bins: []string{binValue}})
		}
	}
	records, err := s.readAll(ctx, reads, max(1, maxCallBytes/s.pieceSize))
	if err != nil {
		return nil, err
	}
	contents := make([][]byte, len(blobs))
	for i, b := range blobs {
		content := make([]byte, 0, b.size)
		for range s.pieces(b) {
			if records[0] == nil {
				return nil, errMissing
			}
			content = append(content, records[0].bytes(binValue)...)
			records = records[1:]
		}
		if len(content) != b.size {
			return nil, errMissing
		}
		contents[i] = content
	}
	return contents, nil
}
