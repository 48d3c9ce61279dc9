package redis

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	identity = storetest.Identity
	batch    = storetest.EventBatch
	check    = storetest.CheckEvents
)

// fake is a server in this process. It lacks INFO, kill -9 and settings.
var fake = storetest.Harness{New: func(tb testing.TB) *storetest.Place {
	server := miniredis.RunT(tb)
	return &storetest.Place{
		Open: func(id projection.Identity) (projection.Store, error) {
			return Open(tb.Context(), Options{Addrs: []string{server.Addr()}, NoCheck: true}, id)
		},
		Damage: func(partition int32) {
			server.Del(newNames(defaultPrefix, storetest.Identity.App).base(partition) + "30")
		},
	}
}}

func TestContract(t *testing.T) { storetest.Run(t, fake) }
