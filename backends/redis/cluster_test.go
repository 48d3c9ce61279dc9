package redis

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

// startCluster starts three masters that share the slots.
func startCluster(t *testing.T) []*server {
	t.Helper()
	return startClusterWith(t, func() (int, []string) { return 0, nil })
}

// startClusterWith gives each node arguments of its own, and the port at which the others meet it
// where that is not the one for clients.
func startClusterWith(t *testing.T, more func() (port int, args []string)) []*server {
	t.Helper()
	var nodes []*server
	var ports []int
	for range 3 {
		port, args := more()
		n := startServer(t, append(args, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no")...)
		nodes, ports = append(nodes, n), append(ports, cmp.Or(port, n.port()))
	}
	for i, n := range nodes {
		n.do("CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1)
		n.do("CLUSTER", "MEET", "127.0.0.1", ports[0])
	}
	for _, n := range nodes {
		n.until("the cluster is whole", func() bool {
			info := n.do("CLUSTER", "INFO").(string)
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return nodes
}

func openCluster(ctx context.Context, nodes []*server, prefix string, id projection.Identity) (*Store, error) {
	return Open(ctx, Options{Mode: Cluster, Addrs: []string{nodes[0].addr, nodes[1].addr}, Prefix: prefix}, id)
}

// TestContractOnCluster is the whole suite on three nodes.
func TestContractOnCluster(t *testing.T) {
	nodes := startCluster(t)
	storetest.Run(t, storetest.Harness{New: func(tb testing.TB) *storetest.Place {
		prefix := fmt.Sprint("p", time.Now().UnixNano())
		return &storetest.Place{
			Open: func(id projection.Identity) (projection.Store, error) {
				return openCluster(tb.Context(), nodes, prefix, id)
			},
			Damage: func(partition int32) {
				c := client.NewClusterClient(&client.ClusterOptions{Addrs: []string{nodes[0].addr}, DisableIdentity: true})
				defer c.Close()
				if n, err := c.Del(tb.Context(), newNames(prefix, storetest.Identity.App).base(partition)+"30").Result(); n != 1 {
					tb.Fatal(n, err)
				}
			},
		}
	}})
	for i, n := range nodes {
		if keys := n.do("DBSIZE").(int64); keys < 100 {
			t.Errorf("node %d has %d keys: the partitions are not spread", i, keys)
		}
	}
}

// TestSlotMoves moves a partition's slot to another node while the writer writes.
func TestSlotMoves(t *testing.T) {
	nodes := startCluster(t)
	s, err := openCluster(t.Context(), nodes, "", identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	w.Run()
	nodes[0].until("the writer is on its way", func() bool { return w.N.Load() >= 100 })

	slot := nodes[0].do("CLUSTER", "KEYSLOT", s.names.watermark(0)).(int64)
	from := nodes[slot*3/16384]
	to := nodes[(slot*3/16384+1)%3]
	fromID, toID := from.do("CLUSTER", "MYID"), to.do("CLUSTER", "MYID")
	to.do("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.do("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	for {
		keys := from.do("CLUSTER", "GETKEYSINSLOT", slot, 10).([]any)
		if len(keys) == 0 {
			break
		}
		from.do(append([]any{"MIGRATE", "127.0.0.1", to.port(), "", 0, 5000, "KEYS"}, keys...)...)
	}
	for _, n := range []*server{to, from} {
		n.do("CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
	before := w.N.Load()
	nodes[0].until("the writer goes on", func() bool { return w.N.Load() >= before+100 })
	w.Halt()
	w.Check()
	t.Log(w.Said())
	if w.Lost.Load() > 0 {
		t.Error("the move was taken for a loss")
	}
}

// TestClusterNodeDies: partitions of other nodes work on, and those of the node that died do
// when it is back; it had kept nothing.
func TestClusterNodeDies(t *testing.T) {
	nodes := startCluster(t)
	s, err := openCluster(t.Context(), nodes, "", identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	w.Run()
	nodes[0].until("the writer is on its way", func() bool { return w.N.Load() >= 100 })
	slot := nodes[0].do("CLUSTER", "KEYSLOT", s.names.watermark(0)).(int64)
	home := nodes[slot*3/16384]
	home.restart()
	home.until("the writer is back", func() bool { return w.Lost.Load()+w.Rewound.Load() > 0 && w.N.Load() > 100 })
	w.Halt()
	w.Check()
	t.Log(w.Said())
}
