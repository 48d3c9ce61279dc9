package kafkatest

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
)

// Ports that FreePort gives are below those that systems give to clients (Linux: from 32768), else
// somebody's connection may have the port while its server is started, or started again. Those
// 10,000 above them, where the nodes of a Redis cluster talk to each other, are too.
const (
	firstPort = 10_000
	ports     = 10_000
	busAbove  = 10_000
)

var given struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort is a port of the loopback that nobody listens on now, nor 10,000 above it, and that it
// has not given to this process before.
func FreePort() (int, error) {
	given.Lock()
	defer given.Unlock()
	for range 1000 {
		p := firstPort + rand.IntN(ports)
		if given.ports[p] || !unused(p) || !unused(p+busAbove) {
			continue
		}
		if given.ports == nil {
			given.ports = map[int]bool{}
		}
		given.ports[p] = true
		return p, nil
	}
	return 0, errors.New("of 1000 ports none is free")
}

func unused(port int) bool {
	l, err := net.Listen("tcp", loopback(port))
	return err == nil && l.Close() == nil
}
