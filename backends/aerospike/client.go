package aerospike

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	as "github.com/aerospike/aerospike-client-go/v7"
	"github.com/aerospike/aerospike-client-go/v7/types"

	"github.com/godagger/dagger/projection"
)

// cluster is a server: the real one.
type cluster struct {
	client    *as.Client
	namespace string
	set       string
	timeout   time.Duration
	secret    string

	mu     sync.Mutex // calls begin under it, until it is closed
	calls  sync.WaitGroup
	closed bool
	next   *flight // the next question for the cluster's name, see stable
	flying bool    // one is being asked
}

// connect waits for the cluster for as long as o.Timeout.
func connect(ctx context.Context, o Options) (*cluster, error) {
	policy := as.NewClientPolicy()
	policy.Timeout, policy.LoginTimeout = o.Timeout, o.Timeout
	policy.ConnectionQueueSize = 256
	policy.SeedOnlyCluster = o.seedOnly
	policy.User, policy.Password = o.Username, o.Password
	if o.External {
		policy.AuthMode = as.AuthModeExternal
	}
	policy.TlsConfig = o.TLS
	var hosts []*as.Host
	for _, addr := range o.Addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("aerospike: %q is no host:port", addr)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return nil, fmt.Errorf("aerospike: %q is no host:port", addr)
		}
		h := as.NewHost(host, n)
		h.TLSName = o.TLSName
		hosts = append(hosts, h)
	}
	c := &cluster{namespace: o.Namespace, set: o.Set, timeout: o.Timeout, secret: o.Password}
	for end := time.Now().Add(o.Timeout); ; {
		client, err := c.dial(ctx, policy, hosts)
		switch {
		case client != nil && err == nil:
			c.client = client
			return c, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		lasts := err.Matches(types.NOT_AUTHENTICATED, types.INVALID_USER, types.INVALID_PASSWORD, types.INVALID_CREDENTIAL,
			types.SECURITY_NOT_SUPPORTED, types.SECURITY_NOT_ENABLED, types.CLUSTER_NAME_MISMATCH_ERROR)
		if lasts || time.Now().After(end) {
			return nil, fmt.Errorf("aerospike: connect: %w", c.said(err))
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// dial makes a client, or none when ctx ends.
func (c *cluster) dial(ctx context.Context, policy *as.ClientPolicy, hosts []*as.Host) (*as.Client, as.Error) {
	type dialled struct {
		client *as.Client
		err    as.Error
	}
	done := make(chan dialled, 1)
	go func() {
		client, err := as.NewClientWithPolicyAndHost(policy, hosts...)
		if err != nil && client != nil {
			client.Close()
		}
		done <- dialled{client, err}
	}()
	select {
	case d := <-done:
		return d.client, d.err
	case <-ctx.Done():
		go func() {
			if d := <-done; d.err == nil {
				d.client.Close()
			}
		}()
		return nil, nil
	}
}

// said is an error of the client, cut to what can be read, and without the password.
func (c *cluster) said(err error) error {
	const most = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	if c.secret != "" {
		text = strings.ReplaceAll(text, c.secret, "xxxxx")
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " …"
	}
	return errors.New(text)
}

// call runs a call of the client, which knows no context, until it ends or ctx does. f must use
// nothing that its caller uses afterwards.
func call[T any](ctx context.Context, c *cluster, f func(timeout time.Duration) (T, error)) (result T, err error) {
	if err := ctx.Err(); err != nil {
		return result, err
	}
	timeout := c.timeout
	if end, ok := ctx.Deadline(); ok {
		timeout = max(time.Millisecond, min(timeout, time.Until(end)))
	}
	type ended struct {
		result T
		err    error
	}
	done := make(chan ended, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return result, projection.ErrClosed
	}
	c.calls.Go(func() {
		result, err := f(timeout)
		done <- ended{result, err}
	})
	c.mu.Unlock()
	select {
	case e := <-done:
		return e.result, e.err
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

// batchPolicy has the client repeat nothing: what was done once must not be taken for refused.
func batchPolicy(timeout time.Duration) *as.BatchPolicy {
	policy := as.NewBatchPolicy()
	policy.MaxRetries = 0
	policy.TotalTimeout, policy.SocketTimeout = timeout, timeout
	policy.ReplicaPolicy = as.MASTER
	policy.ReadModeAP = as.ReadModeAPAll
	policy.ConcurrentNodes = 0
	policy.AllowInlineSSD = false
	policy.RespondAllKeys = true
	return policy
}

func (c *cluster) key(name string) (*as.Key, error) {
	key, err := as.NewKey(c.namespace, c.set, name)
	if err != nil {
		return nil, c.said(err)
	}
	return key, nil
}

// batch makes one call for records, and returns the code of each; none when ctx ended before. The
// error is why some are in doubt.
func (c *cluster) batch(ctx context.Context, records []as.BatchRecordIfc) ([]code, error) {
	return call(ctx, c, func(timeout time.Duration) ([]code, error) {
		err := c.client.BatchOperate(batchPolicy(timeout), records)
		codes := make([]code, len(records))
		for i, r := range records {
			codes[i] = code(r.BatchRec().ResultCode)
		}
		switch {
		case err == nil:
			return codes, nil
		case len(records) == 1: // its code is that of the call
			for _, definite := range definiteCodes {
				if err.Matches(definite) {
					return []code{code(definite)}, nil
				}
			}
		}
		return codes, c.said(err)
	})
}

// definiteCodes are those that say that a change was not made.
var definiteCodes = []types.ResultCode{
	types.KEY_NOT_FOUND_ERROR, types.KEY_EXISTS_ERROR, types.FILTERED_OUT, types.KEY_BUSY, types.DEVICE_OVERLOAD, types.SERVER_MEM_ERROR,
	types.RECORD_TOO_BIG, types.PARTITION_UNAVAILABLE, types.FAIL_FORBIDDEN, types.PARAMETER_ERROR, types.BIN_TYPE_ERROR,
}

// close waits for the calls that run: they end with their time-out at the latest.
func (c *cluster) close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.calls.Wait()
	c.client.Close()
	return nil
}

// each asks every node, one after the other.
func each[T any](ctx context.Context, c *cluster, f func(*as.Node, *as.InfoPolicy) (T, error)) ([]T, error) {
	nodes := c.client.GetNodes()
	if len(nodes) == 0 {
		return nil, fmt.Errorf("%w: no node of the cluster is reached", errPasses)
	}
	return call(ctx, c, func(timeout time.Duration) (list []T, err error) {
		policy := as.NewInfoPolicy()
		policy.Timeout = timeout
		for _, node := range nodes {
			x, err := f(node, policy)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", errPasses, node.GetName(), err)
			}
			list = append(list, x)
		}
		return list, nil
	})
}

func (c *cluster) settings(ctx context.Context) ([]settings, error) {
	config := "get-config:context=namespace;id=" + c.namespace
	namespace := "namespace/" + c.namespace
	return each(ctx, c, func(node *as.Node, policy *as.InfoPolicy) (settings, error) {
		answer, err := node.RequestInfo(policy, "build", config, namespace)
		if err != nil {
			return settings{}, c.said(err)
		}
		n := settings{node: node.GetHost().String(), version: answer["build"], values: map[string]string{}}
		if strings.HasPrefix(answer[namespace], "type=unknown") {
			return n, nil
		}
		for _, text := range []string{answer[namespace], answer[config]} {
			for pair := range strings.SplitSeq(text, ";") {
				if name, value, found := strings.Cut(pair, "="); found {
					n.values[name] = value
				}
			}
		}
		return n, nil
	})
}

// sweep starts a job on every node, which removes records by their bins.
func (c *cluster) sweep(ctx context.Context, partition int32, below, except int64) error {
	_, err := call(ctx, c, func(timeout time.Duration) (none struct{}, err error) {
		policy := as.NewQueryPolicy()
		policy.TotalTimeout, policy.SocketTimeout, policy.MaxRetries = timeout, timeout, 0
		policy.FilterExpression = as.ExpAnd(
			as.ExpEq(as.ExpIntBin(binPartition), as.ExpIntVal(int64(partition))),
			as.ExpLess(as.ExpIntBin(binIncarnation), as.ExpIntVal(below)),
			as.ExpNotEq(as.ExpIntBin(binIncarnation), as.ExpIntVal(except)),
		)
		write := as.NewWritePolicy(0, as.TTLDontExpire)
		write.MaxRetries = 0
		if _, err := c.client.QueryExecute(policy, write, as.NewStatement(c.namespace, c.set), as.DeleteOp()); err != nil {
			return none, c.said(err)
		}
		return none, nil
	})
	return err
}
