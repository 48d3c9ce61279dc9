// Package all links every store driver that this module has: aerospike, pebble, redis
// and mem.
package all

import (
	_ "github.com/godagger/dagger/backends/aerospike"
	_ "github.com/godagger/dagger/backends/pebble"
	_ "github.com/godagger/dagger/backends/redis"
	_ "github.com/godagger/dagger/projection/memstore"
)
