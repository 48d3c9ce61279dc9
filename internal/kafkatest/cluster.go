package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// Cluster is several brokers that replicate to each other.
type Cluster struct {
	Brokers []*Broker
}

// StartCluster starts n brokers, three at least; topics get three replicas, of which two must
// be in sync. Dir and Port of the options are not used.
func StartCluster(ctx context.Context, n int, o Options) (*Cluster, error) {
	if n < 3 {
		return nil, fmt.Errorf("start a cluster: %d brokers are less than three", n)
	}
	c := &Cluster{}
	id := clusterID()
	var voters []string
	o.Dir, o.Port = "", 0
	for node := 1; node <= n; node++ {
		port, err := FreePort()
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		c.Brokers = append(c.Brokers, &Broker{heap: o.HeapMB, node: node, cluster: id, controller: port})
		voters = append(voters, fmt.Sprintf("%d@%s", node, loopback(port)))
	}
	if _, err := Jars(ctx, o.Cache); err != nil { // once, not n times at once
		return nil, err
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for k, b := range c.Brokers {
		b.voters = strings.Join(voters, ",")
		wg.Go(func() { errs[k] = b.start(ctx, o) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// Addrs are the addresses of all brokers, separated by commas.
func (c *Cluster) Addrs() string {
	var all []string
	for _, b := range c.Brokers {
		all = append(all, b.Addr())
	}
	return strings.Join(all, ",")
}

// Stop stops all brokers at once. Twice is fine.
func (c *Cluster) Stop() error {
	errs := make([]error, len(c.Brokers))
	var wg sync.WaitGroup
	for k, b := range c.Brokers {
		wg.Go(func() { errs[k] = b.Stop() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
