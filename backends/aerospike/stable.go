package aerospike

import (
	"context"
	"fmt"
	"slices"
	"strings"

	as "github.com/aerospike/aerospike-client-go/v7"

	"github.com/godagger/dagger/projection"
)

// stable asks for the key of the cluster: a random number that is drawn anew whenever a node
// was started, has left or has come, and an error while that goes on.
const stable = "cluster-stable:ignore-migrations=true"

// flight is one question to all nodes, for all who asked before it began.
type flight struct {
	done chan struct{}
	name string
	err  error
}

// cluster implements server. The client has one connection to each node for such questions, so
// those who come while one is asked share the next one.
func (c *cluster) cluster(ctx context.Context) (string, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return "", projection.ErrClosed
	}
	f := c.next
	if f == nil {
		f = &flight{done: make(chan struct{})}
		c.next = f
		if !c.flying {
			c.flying = true
			c.fly()
		}
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.name, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// fly asks the next question, and the one after it. The caller holds mu.
func (c *cluster) fly() {
	c.calls.Go(func() {
		for {
			c.mu.Lock()
			f := c.next
			if c.next = nil; f == nil {
				c.flying = false
				c.mu.Unlock()
				return
			}
			c.mu.Unlock()
			f.name, f.err = c.ask()
			close(f.done)
		}
	})
}

func (c *cluster) ask() (string, error) {
	names, err := each(context.Background(), c, func(node *as.Node, policy *as.InfoPolicy) (string, error) {
		answer, err := node.RequestInfo(policy, stable)
		if err != nil {
			return "", c.said(err)
		}
		name := answer[stable]
		if upper := strings.ToUpper(name); name == "" || strings.HasPrefix(upper, "ERROR") || strings.HasPrefix(upper, "FAIL") {
			return "", fmt.Errorf("the cluster is not whole: %.100s", name)
		}
		return name, nil
	})
	if err != nil {
		return "", err
	}
	if names = slices.Compact(names); len(names) != 1 {
		return "", fmt.Errorf("%w: the nodes are in different clusters", errPasses)
	}
	return names[0], nil
}
