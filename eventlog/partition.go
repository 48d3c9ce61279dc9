package eventlog

import "strings"

// DefaultPartitions is the partition count of an application that names none.
const DefaultPartitions = 16

// PartitionKey is the part of an id or correlation value that decides its partition, and
// the key of its records: what stands between the first "{" and the first "}" after it, or
// the whole where there is no such part or it is empty (the rule of Redis Cluster's hash
// tags).
func PartitionKey(id string) string {
	if open := strings.IndexByte(id, '{'); open >= 0 {
		if n := strings.IndexByte(id[open+1:], '}'); n > 0 {
			return id[open+1 : open+1+n]
		}
	}
	return id
}

// PartitionOf is the partition of an instance id or a correlation value among p.
func PartitionOf(id string, p int32) int32 {
	return PartitionOfKey(PartitionKey(id), p)
}

// PartitionOfKey is the partition of a record key: murmur2 as the Java client's default
// partitioner has it.
func PartitionOfKey(key string, p int32) int32 {
	return int32(murmur2(key)&0x7fffffff) % p
}

func murmur2(data string) uint32 {
	const (
		seed uint32 = 0x9747b28c
		m    uint32 = 0x5bd1e995
		r           = 24
	)
	h := seed ^ uint32(len(data))
	for len(data) >= 4 {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h *= m
		h ^= k
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	h ^= h >> 15
	return h
}
