package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// stores are those that the service runs on; each makes an empty one and returns its URL, or skips
// the test where there is no server.
var stores = map[string]func(t *testing.T) string{
	"pebble":    func(t *testing.T) string { return "pebble:" + t.TempDir() + "/store" },
	"redis":     redisStore,
	"aerospike": aerospikeStore,
}

func redisStore(t *testing.T) string {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server on this machine")
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	server := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // it may have ended
		_ = server.Wait()
	})
	err := until(t.Context(), func() (bool, error) {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return "redis://" + address + "/0"
}

// aerospikeStore is a set of its own on the server of AEROSPIKE_ADDR.
func aerospikeStore(t *testing.T) string {
	address := os.Getenv("AEROSPIKE_ADDR")
	if address == "" {
		t.Skip("AEROSPIKE_ADDR names no server")
	}
	return fmt.Sprintf("aerospike://%s/%s?set=orders-%d", address, cmp.Or(os.Getenv("AEROSPIKE_NAMESPACE"), "test"), time.Now().UnixNano())
}
