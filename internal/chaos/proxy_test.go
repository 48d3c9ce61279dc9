package chaos

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Keys of the requests whose replies get lost.
const (
	produceKey = 0
	endTxnKey  = 26
)

// proxy stands in front of a broker and loses replies: the broker has done what was asked,
// and the client's connection breaks in place of the answer.
type proxy struct {
	listener net.Listener
	broker   string // address
	wg       sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand
	share  map[int16]float64 // of the replies that get lost, by request key
	lost   map[int16]int
	conns  map[net.Conn]bool
}

func newProxy(t *testing.T, random *rand.Rand, share map[int16]float64) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &proxy{listener: l, random: random, share: share, lost: map[int16]int{}, conns: map[net.Conn]bool{}}
}

// serve begins to forward to a broker; the end of the test ends it.
func (x *proxy) serve(t *testing.T, broker string) {
	x.broker = broker
	x.wg.Go(func() {
		for {
			client, err := x.listener.Accept()
			if err != nil {
				return
			}
			x.wg.Go(func() { x.connection(client) })
		}
	})
	t.Cleanup(func() {
		x.listener.Close()
		x.mu.Lock()
		for c := range x.conns {
			c.Close()
		}
		x.mu.Unlock()
		x.wg.Wait()
	})
}

func (x *proxy) connection(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", x.broker)
	if err != nil {
		return
	}
	defer server.Close()
	x.mu.Lock()
	x.conns[client], x.conns[server] = true, true
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.conns, client)
		delete(x.conns, server)
	}()
	var mu sync.Mutex
	asked := map[int32]int16{} // correlation id -> request key
	var wg sync.WaitGroup
	wg.Go(func() {
		defer server.Close()
		_ = frames(client, server, func(frame []byte) bool { // a broken connection is what is wanted
			mu.Lock()
			defer mu.Unlock()
			asked[int32(binary.BigEndian.Uint32(frame[4:]))] = int16(binary.BigEndian.Uint16(frame))
			return true
		})
	})
	_ = frames(server, client, func(frame []byte) bool {
		id := int32(binary.BigEndian.Uint32(frame))
		mu.Lock()
		key := asked[id]
		delete(asked, id)
		mu.Unlock()
		return !x.lose(key)
	})
	client.Close()
	wg.Wait()
}

// lose decides whether a reply gets lost.
func (x *proxy) lose(key int16) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if share, some := x.share[key]; some && x.random.Float64() < share {
		x.lost[key]++
		return true
	}
	return false
}

func (x *proxy) count(key int16) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lost[key]
}

var errLost = errors.New("the reply got lost")

// frames copies Kafka's frames, each a length and a body of at least eight bytes, while pass
// lets them.
func frames(from io.Reader, to io.Writer, pass func(body []byte) bool) error {
	var size [4]byte
	for {
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return err
		}
		frame := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
		copy(frame, size[:])
		if _, err := io.ReadFull(from, frame[4:]); err != nil {
			return err
		}
		if !pass(frame[4:]) {
			return errLost
		}
		if _, err := to.Write(frame); err != nil {
			return err
		}
	}
}
