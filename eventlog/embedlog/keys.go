package embedlog

import "encoding/binary"

// Kinds of rows, the first byte of a key.
const (
	chunkRow  = 'c' // topic number, partition, offset of the last record -> chunk
	countRow  = 'k' // -> number of commits; see mark
	groupRow  = 'g' // topic number, partition, group -> committed offset
	nextRow   = 'n' // -> next topic number
	epochRow  = 'o' // topic number, partition -> epoch of the owner
	startRow  = 's' // topic number, partition -> first offset, where records were deleted
	topicRow  = 't' // name -> topicInfo as JSON
	formatRow = 'v' // -> version of this layout
)

const format = "1"

// partitionKey is the prefix that all rows of a kind and a partition share.
func partitionKey(kind byte, topic uint32, partition int32) []byte {
	k := make([]byte, 0, 32)
	k = append(k, kind)
	k = binary.BigEndian.AppendUint32(k, topic)
	return binary.BigEndian.AppendUint32(k, uint32(partition))
}

func chunkKey(topic uint32, partition int32, last int64) []byte {
	return binary.BigEndian.AppendUint64(partitionKey(chunkRow, topic, partition), uint64(last))
}

// chunkLast is the offset in the key of a chunk.
func chunkLast(key []byte) int64 { return int64(binary.BigEndian.Uint64(key[9:])) }

func groupKey(topic uint32, partition int32, group string) []byte {
	return append(partitionKey(groupRow, topic, partition), group...)
}

func topicKey(name string) []byte { return append([]byte{topicRow}, name...) }

func appendInt(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

func readInt(b []byte) int64 {
	if len(b) != 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}
