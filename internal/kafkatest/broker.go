// Package kafkatest runs real Apache Kafka brokers for tests, from Kafka's own jars: one node
// or several, each broker and controller, on free ports of the loopback. It needs Java 17
// and, when the jars are not cached yet, Maven and the network.
package kafkatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 15 * time.Second // a broker takes two seconds to stop
	fenceTimeout = 10 * time.Second // a session lasts 1.5
)

// Options say how a broker runs. The zero value works.
type Options struct {
	Dir      string            // data; a temporary directory, removed by Stop, when empty
	Cache    string            // where the jars are kept; DefaultCache when empty
	Port     int               // of the broker; a free one when 0
	Settings map[string]string // of server.properties, over the ones for tests
	HeapMB   int               // 256 when 0

	// Users by name, with their passwords. With any the broker has two further listeners,
	// SecureAddr and MutualAddr, which demand TLS and a login.
	Users map[string]string
	// Authorize makes the broker refuse what no ACL allows. Who comes through Addr may do
	// everything.
	Authorize bool
}

// Broker is a running broker. Its methods may be called from one goroutine at a time.
type Broker struct {
	dir, jars  string
	temporary  bool
	port       int
	heap       int
	node       int
	cluster    string // its id
	controller int    // port
	voters     string // of a cluster
	secure     secure
	killed     bool // since the last start

	mu   sync.Mutex
	cmd  *exec.Cmd
	exit <-chan struct{} // closed when the process has ended
}

// Start gets the jars, formats the data directory when it is new, starts the broker and
// waits until it listens. The process ends with this one, whatever happens to it (Linux).
func Start(ctx context.Context, o Options) (*Broker, error) {
	var err error
	b := &Broker{dir: o.Dir, port: o.Port, heap: o.HeapMB, node: 1, cluster: clusterID()}
	if b.controller, err = FreePort(); err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	if err := b.start(ctx, o); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

func (b *Broker) start(ctx context.Context, o Options) (err error) {
	if b.jars, err = Jars(ctx, o.Cache); err != nil {
		return err
	}
	if b.heap == 0 {
		b.heap = 256
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "kafka-"); err != nil {
			return fmt.Errorf("make a data directory: %w", err)
		}
		b.temporary = true
	}
	if b.port == 0 {
		if b.port, err = FreePort(); err != nil {
			return fmt.Errorf("find a free port: %w", err)
		}
	}
	if err := b.format(ctx, o); err != nil {
		return err
	}
	return b.run(ctx)
}

func clusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f           // Kafka takes no id that begins with a hyphen
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// Addr is the broker's host:port.
func (b *Broker) Addr() string { return loopback(b.port) }

// LogFile is where the broker's own log goes.
func (b *Broker) LogFile() string { return filepath.Join(b.dir, "broker.log") }

func (b *Broker) config() string { return filepath.Join(b.dir, "server.properties") }

// format writes the settings, and formats the data directory unless it was before.
func (b *Broker) format(ctx context.Context, o Options) error {
	if _, err := os.Stat(filepath.Join(b.dir, "data", "meta.properties")); err == nil {
		return nil // its settings stand there as well
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	all := b.settings()
	if len(o.Users) > 0 {
		if err := b.secureSettings(o, all); err != nil {
			return err
		}
	}
	maps.Copy(all, o.Settings)
	if err := os.WriteFile(b.config(), properties(all), 0o600); err != nil {
		return fmt.Errorf("write server.properties: %w", err)
	}
	if err := os.WriteFile(b.logConfig(), []byte(log4j2), 0o644); err != nil {
		return fmt.Errorf("write the logging settings: %w", err)
	}
	args := append([]string{"format", "-t", b.cluster, "-c", b.config()}, scram(o.Users)...)
	if b.voters == "" {
		args = append(args, "--standalone")
	}
	out, err := b.java(ctx, "kafka.tools.StorageTool", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format the data directory: %w: %s", err, tail(out))
	}
	return nil
}

func (b *Broker) java(ctx context.Context, class string, args ...string) *exec.Cmd {
	all := append([]string{
		"-Xmx" + strconv.Itoa(b.heap) + "m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dlog4j2.configurationFile=" + b.logConfig(),
		"-cp", filepath.Join(b.jars, "*"), class,
	}, args...)
	return exec.CommandContext(ctx, "java", all...)
}

// run starts the process and waits until it listens.
func (b *Broker) run(ctx context.Context) error {
	if err := b.spawn(ctx, b.config()); err != nil {
		return err
	}
	return b.poll(ctx, func() (bool, error) {
		for _, port := range []int{b.port, b.secure.sasl, b.secure.mutual} {
			if port == 0 {
				continue
			}
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", loopback(port))
			if err != nil {
				return false, nil // not yet
			}
			if err := conn.Close(); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// spawn starts the process.
func (b *Broker) spawn(ctx context.Context, config string) error {
	log, err := os.OpenFile(b.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the broker's log: %w", err)
	}
	defer log.Close()
	cmd := b.java(context.WithoutCancel(ctx), "kafka.Kafka", config) // it outlives Start
	cmd.Stdout, cmd.Stderr = log, log
	exit, err := StartChild(cmd)
	if err != nil {
		return fmt.Errorf("start java: %w", err)
	}
	b.mu.Lock()
	b.cmd, b.exit = cmd, exit
	b.mu.Unlock()
	return nil
}

// poll waits until ready says so, or the process ends.
func (b *Broker) poll(ctx context.Context, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it was not ready within %v", startTimeout))
	defer cancel()
	b.mu.Lock()
	exit := b.exit
	b.mu.Unlock()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ready(); done || err != nil {
			return err
		}
		select {
		case <-exit:
			out, _ := os.ReadFile(b.LogFile())
			return fmt.Errorf("start the broker: it ended: %s", tail(out))
		case <-ctx.Done():
			out, _ := os.ReadFile(b.LogFile())
			return fmt.Errorf("start the broker: %w: %s", context.Cause(ctx), tail(out))
		case <-tick.C:
		}
	}
}

// Kill ends the process at once (SIGKILL); the data stays for Restart.
func (b *Broker) Kill() error {
	b.killed = true
	return b.end(syscall.SIGKILL)
}

// Restart starts the process again, on the same port and data, and waits until it listens.
//
// After Kill a broker that is alone first lets a controller note that the broker was away, as it does in a
// cluster; three seconds more. A single node that finds its own old session still running
// takes its partitions for led, then for gone, and forgets to end prepared transactions in
// them (Kafka 4.4.0).
func (b *Broker) Restart(ctx context.Context) error {
	if err := b.end(syscall.SIGTERM); err != nil {
		return err
	}
	if b.killed && b.voters == "" {
		b.killed = false
		if err := b.forget(ctx); err != nil {
			return err
		}
	}
	return b.run(ctx)
}

// forget runs the node as a controller only, until the broker's session has ended.
func (b *Broker) forget(ctx context.Context) error {
	props, err := os.ReadFile(b.config())
	if err != nil {
		return fmt.Errorf("read server.properties: %w", err)
	}
	file := filepath.Join(b.dir, "controller.properties")
	if err := os.WriteFile(file, []byte(controllerOnly(string(props))), 0o644); err != nil {
		return fmt.Errorf("write controller.properties: %w", err)
	}
	before, err := b.fencings()
	if err != nil {
		return err
	}
	if err := b.spawn(ctx, file); err != nil {
		return err
	}
	enough := time.Now().Add(fenceTimeout) // it may have been given up before it was killed
	fenced := b.poll(ctx, func() (bool, error) {
		now, err := b.fencings()
		return now > before || time.Now().After(enough), err
	})
	return errors.Join(fenced, b.end(syscall.SIGTERM))
}

// fencings counts how often the broker's log says that the controller has given it up.
func (b *Broker) fencings() (int, error) {
	log, err := os.ReadFile(b.LogFile())
	if err != nil {
		return 0, fmt.Errorf("read the broker's log: %w", err)
	}
	return bytes.Count(log, []byte(fencedLine)), nil
}

// Stop ends the process, in order where it can, and removes a temporary data directory.
// Twice is fine.
func (b *Broker) Stop() error {
	err := b.end(syscall.SIGTERM)
	if b.temporary {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

func (b *Broker) end(signal syscall.Signal) error {
	b.mu.Lock()
	cmd, exit := b.cmd, b.exit
	b.cmd = nil
	b.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the broker: %w", err)
	}
	select {
	case <-exit:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = cmd.Process.Kill()
	<-exit
	return nil
}

func tail(out []byte) string {
	const most = 2000
	s := strings.TrimSpace(string(out))
	return s[max(0, len(s)-most):]
}
