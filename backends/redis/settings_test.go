package redis

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/storetest"
)

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func TestDangerousSettings(t *testing.T) {
	good := map[string]string{"redis_version": "7.0.15", "loading": "0", "role": "master", "maxmemory_policy": "noeviction", "cluster_enabled": "0"}
	for _, c := range []struct {
		name, value string
		mode        Mode
		err         string
	}{
		{"role", "master", Single, ""},
		{"redis_version", "6.2.0", Single, ""},
		{"redis_version", "10.1.0", Single, ""},
		{"redis_version", "6.0.16", Single, "6.2 is the least"},
		{"redis_version", "5.0.7", Single, "6.2 is the least"},
		{"redis_version", "", Single, "version"},
		{"redis_version", "new", Single, "6.2 is the least"},
		{"loading", "1", Single, "loading:1"},
		{"role", "slave", Single, "role:slave"},
		{"maxmemory_policy", "allkeys-lru", Single, "maxmemory-policy is allkeys-lru"},
		{"maxmemory_policy", "volatile-ttl", Single, "maxmemory-policy is volatile-ttl"},
		{"cluster_enabled", "1", Single, "cluster-enabled yes"},
		{"cluster_enabled", "0", Cluster, "cluster-enabled no"},
		{"cluster_enabled", "1", Cluster, ""},
	} {
		info := map[string]string{}
		for k, v := range good {
			info[k] = v
		}
		info[c.name] = c.value
		err := checkInfo(info, c.mode)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s=%s in mode %d: %v, want %q", c.name, c.value, c.mode, err, c.err)
		}
	}
}

// TestServerIsRefused opens real servers that must not be used.
func TestServerIsRefused(t *testing.T) {
	master := startServer(t, "--repl-diskless-sync-delay", "0")
	for name, c := range map[string]struct {
		server *server
		mode   Mode
		err    string
	}{
		"evicting":    {startServer(t, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"), Single, "maxmemory-policy is allkeys-lru"},
		"replica":     {startReplica(t, master), Single, "read-only replica"},
		"cluster":     {startServer(t, "--cluster-enabled", "yes"), Single, "use redis+cluster"},
		"no password": {startServer(t, "--requirepass", "secret"), Single, "NOAUTH"},
	} {
		_, err := Open(t.Context(), Options{Addrs: []string{c.server.addr}, Mode: c.mode}, identity)
		if err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.err)
		}
	}
	_, err := Open(t.Context(), Options{Addrs: []string{freeAddr(t)}}, identity)
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("no server: %v", err)
	}
}

// TestMemoryIsFull fills a server up to maxmemory: the batch is refused whole, and work goes on
// when there is room.
func TestMemoryIsFull(t *testing.T) {
	server := startServer(t, "--maxmemory", "6mb")
	s := server.open(t, identity)
	p, err := s.Acquire(t.Context(), 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	large := func(n uint64) projection.Batch {
		b := batch(n, 1)
		raw := make([]byte, 100_000)
		rand.Read(raw)
		b.Put = append(b.Put, projection.Row{Kind: projection.KindPlan, Key: fmt.Append(nil, n), Value: raw})
		return b
	}
	n := uint64(0)
	for ; err == nil && n < 1000; n++ {
		err = p.Apply(t.Context(), large(n+1))
	}
	if err == nil || !strings.Contains(err.Error(), "OOM") || errors.Is(err, projection.ErrStateLost) {
		t.Fatalf("apply to a full server: %v", err)
	}
	w, err := p.Watermark(t.Context())
	if err != nil || w.N != n-1 {
		t.Fatalf("the watermark is %+v, %v, want event %d", w, err, n-1)
	}
	for range 3 {
		if err := p.Apply(t.Context(), large(n)); err == nil {
			t.Fatal("a full server took a batch")
		}
	}
	if _, _, err := p.Scan(t.Context(), projection.KindPlan, nil, nil, 0); err != nil {
		t.Errorf("scan of a full server: %v", err)
	}
	// A batch that begins with a removal frees memory, but not enough.
	mixed := projection.Batch{Expected: n - 1, New: projection.Watermark{N: n, Epoch: 1, LogID: "log", Sum: n},
		Del: []projection.Row{{Kind: projection.KindDue, Key: []byte("001")}}, Put: large(n).Put}
	if err := p.Apply(t.Context(), mixed); err == nil {
		t.Log("a batch that frees first was taken")
		server.do("CONFIG", "SET", "maxmemory", "100mb")
		return
	}
	server.do("CONFIG", "SET", "maxmemory", "100mb")
	if err := p.Apply(t.Context(), large(n)); err != nil {
		t.Fatal(err)
	}
	rows, at, err := p.Scan(t.Context(), projection.KindPlan, nil, nil, 0)
	if err != nil || at != n || len(rows) != int(n) {
		t.Errorf("%d rows at event %d, %v, want %d", len(rows), at, err, n)
	}
}

// TestLoginIsExplained: who lacks a login, has a wrong one or too few rights is told where the URL
// has it, and no password is shown.
func TestLoginIsExplained(t *testing.T) {
	server := startServer(t, "--requirepass", "hidden1")
	client := server.addr
	open := func(login string) error {
		o, err := parseURL(parse(t, "redis://"+login+client+"/3"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), o, identity)
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := open(":hidden1@"); err != nil {
		t.Fatal(err)
	}
	plain := startServer(t)
	plain.do("ACL", "SETUSER", "poor", "on", ">hidden2", "~*", "+@all", "-@scripting")
	for login, c := range map[string]struct {
		addr string
		want []string
	}{
		"":              {server.addr, []string{"NOAUTH", "wants a login"}},
		":hidden3@":     {server.addr, []string{"WRONGPASS", "the user default"}},
		"joe:hidden4@":  {server.addr, []string{"WRONGPASS", `the user "joe"`}},
		"poor:hidden2@": {plain.addr, []string{"NOPERM", `the user "poor" lacks a right`}},
	} {
		client = c.addr
		err := open(login)
		if err == nil {
			t.Errorf("%q: opened", login)
			continue
		}
		for _, text := range append(c.want, "redis://USER:PASSWORD@"+c.addr+"/3", "password_file=") {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q: %v, want an error with %q", login, err, text)
			}
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: a password is in %v", login, err)
		}
	}
	o := Options{Mode: Sentinel, Addrs: []string{"a:1"}, Master: "m", Username: "joe", Password: "hidden6"}
	if err := o.loginHint(errors.New("NOAUTH Authentication required.")); !strings.Contains(err.Error(), "sentinel_user=") || strings.Contains(err.Error(), "hidden") {
		t.Errorf("of Sentinels: %v", err)
	}
	if other := errors.New("other"); o.loginHint(other) != other {
		t.Error("an error of another kind is explained")
	}
}

// TestUsers works as a user with no more rights than docs/backends.md names, and finds a user
// who lacks one when the store is opened.
func TestUsers(t *testing.T) {
	server := startServer(t)
	rights := []any{"on", ">secret", "~dagger:*", "-@all", "+hget", "+hmget", "+hset", "+hdel", "+hlen", "+hgetall", "+hincrby",
		"+zadd", "+zrem", "+zcard", "+zscore", "+zrange", "+zrangebylex", "+unlink", "+eval", "+evalsha", "+multi", "+exec", "+info", "+hello", "+select"}
	server.do(append([]any{"ACL", "SETUSER", "worker"}, rights...)...)
	open := func(user string) (*Store, error) {
		o, err := parseURL(parse(t, "redis://"+user+":secret@"+server.addr+"/0"))
		if err != nil {
			t.Fatal(err)
		}
		return Open(t.Context(), o, identity)
	}
	s, err := open("worker")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	for range 20 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	w.Check()
	if _, err := s.Partitions(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Drop(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	rebuild(w)
	w.Check()
	for _, right := range []string{"zrem", "unlink", "hincrby"} {
		server.do(append(append([]any{"ACL", "SETUSER", "poor"}, rights...), "-"+right)...)
		_, err := open("poor")
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), right) {
			t.Errorf("without %s: %v", right, err)
		}
		server.do("ACL", "DELUSER", "poor")
	}
	server.do(append(append([]any{"ACL", "SETUSER", "silent"}, rights...), "-info")...)
	if _, err := open("silent"); err == nil || !strings.Contains(err.Error(), "check=off") {
		t.Errorf("without info: %v", err)
	}
	if _, err := open("nobody"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an unknown user: %v", err)
	}
	// Rights withdrawn while it runs: nothing is written, and work goes on when they are back.
	server.do("ACL", "SETUSER", "worker", "-zadd", "-hset")
	err = w.Part.Apply(t.Context(), batch(1, 1))
	if err == nil || errors.Is(err, projection.ErrStateLost) {
		t.Errorf("without rights: %v", err)
	}
	server.do("ACL", "SETUSER", "worker", "+zadd", "+hset")
	w.Part = nil
	if err := w.Step(); err != nil {
		t.Error(err)
	}
	w.Check()
}

// TestTLS talks TLS, as a user, with a server that wants to know its clients: it works there, and
// nobody else gets in.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	server := startServer(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
	server.do("ACL", "SETUSER", "worker", "on", ">secret", "~dagger:*", "+@all")
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(raw string) (*Store, error) {
		o, err := parseURL(parse(t, raw))
		if err != nil {
			return nil, err
		}
		return Open(t.Context(), o, identity)
	}
	s, err := open("rediss://worker:secret@" + addr + "?ca=" + cert + "&cert=" + cert + "&key=" + key)
	if err != nil {
		if strings.Contains(server.log.String(), "TLS") {
			t.Skip("this redis-server has no TLS")
		}
		t.Fatal(err)
	}
	defer s.Close()
	w := storetest.NewOwner(t, s)
	for range 20 {
		if err := w.Step(); err != nil {
			t.Fatal(err)
		}
	}
	w.Check()
	rebuild(w)
	w.Check()
	for what, u := range map[string]string{
		"no certificate of its own": "rediss://worker:secret@" + addr + "?ca=" + cert,
		"an unknown authority":      "rediss://worker:secret@" + addr + "?cert=" + cert + "&key=" + key,
		"no TLS":                    "redis://worker:secret@" + addr + "?timeout=2s",
		"another password":          "rediss://worker:guess@" + addr + "?ca=" + cert + "&cert=" + cert + "&key=" + key,
	} {
		if s, err := open(u); err == nil {
			s.Close()
			t.Errorf("%s: opened", what)
		}
	}
}

// TestTLSOnCluster does so on three nodes, which tell each other's addresses.
func TestTLSOnCluster(t *testing.T) {
	cert, key := certificate(t, t.TempDir())
	var addrs []string
	startClusterWith(t, func() (int, []string) {
		addr := freeAddr(t)
		addrs = append(addrs, addr)
		_, text, _ := net.SplitHostPort(addr)
		port, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return port, []string{"--tls-port", text, "--tls-cluster", "yes", "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert}
	})
	o, err := parseURL(parse(t, "rediss+cluster://"+addrs[0]+","+addrs[1]+"?ca="+cert+"&cert="+cert+"&key="+key))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), o, identity)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := range identity.Partitions { // in the slots of all nodes
		p, err := s.Acquire(t.Context(), n, 1)
		if err != nil {
			t.Fatal(err)
		}
		for k := range uint64(3) {
			if err := p.Apply(t.Context(), batch(k+1, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if at := check(t, p); at != 3 {
			t.Errorf("partition %d stands at event %d, want 3", n, at)
		}
	}
}

// certificate writes a certificate for 127.0.0.1, signed by itself, and its key.
func certificate(t *testing.T, dir string) (cert, key string) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	secretDER, err := x509.MarshalECPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: secretDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func parse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
