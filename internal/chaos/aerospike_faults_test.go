package chaos

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	as "github.com/aerospike/aerospike-client-go/v7"
)

// aerospikeURL is a set of its own on the server of AEROSPIKE_ADDR, which is emptied at the end.
func aerospikeURL(t *testing.T) string {
	t.Helper()
	addr := os.Getenv("AEROSPIKE_ADDR")
	if addr == "" {
		t.Skip("AEROSPIKE_ADDR names no server")
	}
	namespace := cmp.Or(os.Getenv("AEROSPIKE_NAMESPACE"), "test")
	set := fmt.Sprintf("chaos-%d", time.Now().UnixNano())
	url := fmt.Sprintf("aerospike://%s/%s?set=%s&timeout=2s", addr, namespace, set)
	t.Cleanup(func() { truncateOf(t, url) })
	return url
}

// truncateOf removes all records of a URL that aerospikeURL made.
func truncateOf(t *testing.T, url string) {
	t.Helper()
	rest, _ := strings.CutPrefix(url, "aerospike://")
	addr, rest, _ := strings.Cut(rest, "/")
	namespace, rest, _ := strings.Cut(rest, "?set=")
	set, _, _ := strings.Cut(rest, "&")
	if err := truncate(addr, namespace, set); err != nil {
		t.Errorf("empty set %s: %v", set, err)
	}
}

func truncate(addr, namespace, set string) error {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	c, dialErr := as.NewClient(host, port)
	if dialErr != nil {
		return dialErr
	}
	defer c.Close()
	if err := c.Truncate(nil, namespace, set, nil); err != nil {
		return err
	}
	return nil
}

// TestAerospikeRestartsEmbedded kills and stops an Aerospike server while the engine works. Its
// records come back as they once were, or the last of them are forgotten, or all.
// AEROSPIKE_RESTART is run with kill or stop; it does that and starts the server again.
func TestAerospikeRestartsEmbedded(t *testing.T) {
	begin(t)
	url := aerospikeURL(t)
	restart := os.Getenv("AEROSPIKE_RESTART")
	if restart == "" {
		t.Skip("AEROSPIKE_RESTART has no command that restarts the server")
	}
	w := newStoreWorld(t, url)
	w.feed(pick(5000, 500), 30)
	for k := range pick(20, 3) {
		w.awaitAcked(90) // in some seconds: all but the last of them is in the server's file
		how := []string{"kill", "stop"}[k%2]
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", restart+" "+how).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", restart, how, err, out)
		}
		w.awaitReady()
	}
	w.finish()
	if n := strings.Count(w.said.String(), "the store's partition is rebuilt"); n < 4 {
		t.Errorf("partitions were rebuilt %d times only", n)
	}
}
