package webui

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// DefaultAddress is the address of Listen("").
const DefaultAddress = "127.0.0.1:6066"

// Listen listens on a host and port. "" is DefaultAddress. Without a host (":8080") only this machine
// can connect: to let others in, name the host ("0.0.0.0:8080"), and put something in front that
// knows who may do what.
func Listen(address string) (net.Listener, error) {
	if address == "" {
		address = DefaultAddress
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", address, err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// URL returns the URL of a listener, for workflow.Config.Address. If it listens on all addresses of
// this machine, the URL has the machine's name.
func URL(l net.Listener) string {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		name, err := os.Hostname()
		if err != nil {
			return ""
		}
		host = name
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// drainTime is how long requests may go on after Serve was told to end.
const drainTime = 5 * time.Second

// Serve answers requests until ctx ends, gives those under way five seconds to end, and returns nil.
// It closes the listener. If only this machine can connect to l, requests must name a host of this
// machine: a web page from elsewhere can't reach the handler by a DNS name that points here.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	if a, ok := l.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		h = localHost(h)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err := s.Shutdown(limit)
		if err != nil {
			err = errors.Join(err, s.Close())
		}
		ended <- err
	})
	err := s.Serve(l)
	if stop() { // not told to end
		return fmt.Errorf("serve HTTP: %w", err)
	}
	if err := <-ended; err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("end HTTP: %w", err)
	}
	return nil
}

// localHost refuses requests for hosts of elsewhere.
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			fail(w, problem{Status: http.StatusForbidden, Code: "host", Detail: "this server is for its own machine: ask for localhost"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
