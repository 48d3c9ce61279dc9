package kafkalog

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// pipes is a network in memory: in a bubble, where real connections would hold the time.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
}

type pipeListener struct {
	addr   *net.TCPAddr
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func (n *pipes) listen(string, string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &pipeListener{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1 + len(n.listeners)}, make(chan net.Conn), make(chan struct{}), nil}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	n.listeners[l.addr.String()] = l
	return l, nil
}

func (n *pipes) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.close(); return nil }
func (l *pipeListener) Addr() net.Addr { return l.addr }

// inBubble gives f a fake broker and a log on it, in virtual time.
func inBubble(t *testing.T, params string, f func(t *testing.T, c *kfake.Cluster, l *kafkaLog)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &pipes{listeners: map[string]*pipeListener{}}
		c := fake(t, kfake.ListenFn(n.listen))
		l, err := open(t.Context(), appURL(c.ListenAddrs()[0], newApp(), params), kgo.Dialer(n.dial))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, c, l)
	})
}
