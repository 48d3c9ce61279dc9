package aerospike

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// A message to or from a server is a head of 8 bytes, whose second one is its type and whose last
// six are the length of what follows. A command, and each part of its reply, begins with 22 bytes:
// their length, three bytes of flags, and others.
const (
	headSize   = 8
	typeOf     = 1
	typeInfo   = 1
	isBatch    = 1 << 3 // in the first flags of a command
	isLastPart = 1      // in the third flags of a part of a reply
)

// fate is what becomes of a command on its way.
type fate int

const (
	passes      fate = iota
	loseRequest      // the connection ends before the server has the command
	cutRequest       // or has half of it
	loseReply        // it ends before the client has the reply
	cutReply         // or has half of it
	hold             // the server gets the command when the test releases it
)

func (f fate) String() string {
	return []string{"passes", "lose request", "cut request", "lose reply", "cut reply", "hold"}[f]
}

// proxy stands between a store and its server. Its fate func decides about each command but not
// about info requests.
type proxy struct {
	listener net.Listener
	server   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	fate   func(n int) fate // n = 0, 1, 2 … since it was set; nil = all pass
	n      int
	held   []*heldCommand
}

type heldCommand struct {
	free chan struct{} // closed when it may go on
	done chan struct{} // closed when the server has answered it
	once sync.Once
}

func startProxy(tb testing.TB, server string) *proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{listener: l, server: server}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	tb.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// close ends all connections wherever they are, as a crash of the client does, and drops what is
// held.
func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		c.Close()
	}
	for _, h := range p.held {
		h.once.Do(func() { close(h.free) })
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// decide has f decide from now on. It returns how many commands the one before has seen.
func (p *proxy) decide(f func(n int) fate) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.n
	p.fate, p.n = f, 0
	return n
}

// only gives command k such a fate.
func only(k int, what fate) func(int) fate {
	return func(n int) fate {
		if n == k {
			return what
		}
		return passes
	}
}

// from gives it to command k and all later ones.
func from(k int, what fate) func(int) fate {
	return func(n int) fate {
		if n >= k {
			return what
		}
		return passes
	}
}

// release lets the commands that are held go to the server, one after the other in an order that
// shuffle makes, and waits until each was answered. It returns how many they were.
func (p *proxy) release(shuffle func(n int, swap func(i, j int))) int {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	if shuffle != nil {
		shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	}
	for _, h := range held {
		h.once.Do(func() { close(h.free) })
		<-h.done
	}
	return len(held)
}

// about decides about a command.
func (p *proxy) about() (fate, *heldCommand) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what := passes
	if p.fate != nil {
		what = p.fate(p.n)
	}
	p.n++
	if what != hold || p.closed {
		return what, nil
	}
	h := &heldCommand{free: make(chan struct{}), done: make(chan struct{})}
	p.held = append(p.held, h)
	return what, h
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	closed := p.closed
	p.mu.Unlock()
	for !closed {
		request, err := readMessage(client)
		if err != nil || !p.carry(request, client, server) {
			return
		}
	}
}

// carry brings a request to the server and the reply back, or not. It says whether the connection
// goes on.
func (p *proxy) carry(request []byte, client, server net.Conn) bool {
	what, held := passes, (*heldCommand)(nil)
	command := request[typeOf] != typeInfo
	if command {
		what, held = p.about()
	}
	switch what {
	case loseRequest:
		return false
	case cutRequest:
		server.Write(request[:len(request)/2])
		return false
	case hold:
		if held == nil {
			return false
		}
		defer close(held.done)
		<-held.free
		late, err := net.Dial("tcp", p.server) // it may have been started again meanwhile
		if err != nil {
			return false
		}
		defer late.Close()
		server = late
	}
	if _, err := server.Write(request); err != nil {
		return false
	}
	for {
		reply, err := readMessage(server)
		if err != nil {
			return false
		}
		last := !command || request[headSize+1]&isBatch == 0 || isLast(reply)
		switch what {
		case loseReply: // all of it: now the server has made everything
		case cutReply:
			client.Write(reply[:len(reply)/2])
			what = loseReply
		default:
			if _, err := client.Write(reply); err != nil && held == nil {
				return false
			}
		}
		if last {
			return what == passes
		}
	}
}

func readMessage(from io.Reader) ([]byte, error) {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint64(head) & (1<<48 - 1)
	message := append(head, make([]byte, size)...)
	_, err := io.ReadFull(from, message[headSize:])
	return message, err
}

// isLast says whether a message has the last part of a batch's reply.
func isLast(message []byte) bool {
	rest := message[headSize:]
	for len(rest) >= 22 {
		if rest[3]&isLastPart != 0 {
			return true
		}
		things := int(binary.BigEndian.Uint16(rest[18:])) + int(binary.BigEndian.Uint16(rest[20:]))
		rest = rest[22:]
		for range things { // fields and bins: each has its length before it
			n := binary.BigEndian.Uint32(rest)
			rest = rest[4+n:]
		}
	}
	return false
}
