package main

import (
	"bufio"
	"fmt"
	"net"
	"testing"
)

func TestStoreURLs(t *testing.T) {
	for _, x := range []struct{ given, own, beside string }{
		{"redis://h:1/0", "redis://h:1/0?prefix=bench-r", "redis://h:1/0?prefix=empty-bench-r"},
		{"redis://h:1?buckets=4", "redis://h:1?buckets=4&prefix=bench-r", "redis://h:1?buckets=4&prefix=empty-bench-r"},
		{"redis://h:1?prefix=mine", "redis://h:1?prefix=mine", "redis://h:1?prefix=empty-mine"},
		{"pebble:dir?wal=off", "pebble:dir?wal=off", "pebble:dir-empty?wal=off"},
		{"pebble:///a/b", "pebble:///a/b", "pebble:///a/b-empty"},
		{"mem:", "mem:", "mem:"},
		{"aerospike://h:3000/n", "aerospike://h:3000/n", ""},
	} {
		if got := ownPrefix(x.given, "r"); got != x.own {
			t.Errorf("ownPrefix(%q) = %q, want %q", x.given, got, x.own)
		}
		if got := beside(x.own); got != x.beside {
			t.Errorf("beside(%q) = %q, want %q", x.own, got, x.beside)
		}
	}
}

// A server's memory is read from what it says of itself; of one that is not there, or asks for
// a password, nothing is known.
func TestRedisBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		asked <- line
		text := "# Memory\r\nused_memory:12345\r\nused_memory_human:12.06K\r\n"
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(text), text)
	}()
	if n := storeBytes("redis://" + l.Addr().String() + "/0"); n != 12345 {
		t.Errorf("%d bytes", n)
	}
	if line := <-asked; line != "INFO memory\r\n" {
		t.Errorf("asked %q", line)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"redis://" + l.Addr().String(), "redis://user:secret@" + l.Addr().String(), "mem:"} {
		if n := storeBytes(url); n != 0 {
			t.Errorf("%s: %d bytes", url, n)
		}
	}
}
