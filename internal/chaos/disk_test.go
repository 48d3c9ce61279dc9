package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godagger/dagger/projection"
)

// mountedVar says that this process has a mount table of its own.
const mountedVar = "DAGGER_CHAOS_MOUNTED"

// TestFullDiskUnderLogEmbedded fills the disk of the log under load and frees it later. The
// worker says what is wrong; nothing acknowledged is lost, and it goes on.
func TestFullDiskUnderLogEmbedded(t *testing.T) { fullDisk(t, "log") }

// TestFullDiskUnderStoreEmbedded does the same to the disk of the store; before it is killed the
// worker is asked to end, which it does.
func TestFullDiskUnderStoreEmbedded(t *testing.T) { fullDisk(t, "store") }

// onSmallDisk runs a test with a small disk that is mounted where only a copy of this process
// sees it, and that ends with it.
func onSmallDisk(t *testing.T, test func(t *testing.T, disk string)) {
	begin(t)
	if os.Getenv(mountedVar) == "" {
		t.Parallel()
		cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "5m")
		cmd.Env = append(os.Environ(), mountedVar+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		switch {
		case err != nil && (len(out) == 0 || strings.HasPrefix(string(out), "unshare:")):
			t.Skipf("no mounts of its own: %v", err)
		case err != nil:
			t.Error(err)
		case strings.Contains(string(out), "--- SKIP"):
			t.Skip("it could not mount a small disk")
		}
		return
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256m", "none", disk).CombinedOutput(); err != nil {
		t.Skipf("mount a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", disk).Run() }) // else its directory can't be removed
	test(t, disk)
}

// remount makes the small disk read-only, or writable again.
func remount(t *testing.T, disk, how string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+how, disk).CombinedOutput(); err != nil {
		t.Fatalf("remount %s: %v: %s", how, err, out)
	}
}

// TestFullDiskIsOutlivedEmbedded: while the disk of the store is full its partitions say so,
// and go on by themselves when it has room again, all in one process.
func TestFullDiskIsOutlivedEmbedded(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		// Small memtables: their logs have their room beforehand.
		w := newStoreWorld(t, "pebble:"+filepath.Join(disk, "store")+"?memtables=12MiB")
		w.feed(200, 500)
		for range pick(5, 2) {
			w.awaitAcked(200)
			ballast := filepath.Join(disk, "ballast")
			fill(t, ballast)
			w.feed(4000, 800) // more than there is room for
			w.awaitNotReady("no space left on device")
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			w.awaitReady()
		}
		w.finish()
	})
}

// TestReadOnlyDiskUnderStoreEmbedded: a worker does not start on a store that it can't write,
// and says why; when it can, it goes on from where the store stands.
func TestReadOnlyDiskUnderStoreEmbedded(t *testing.T) {
	onSmallDisk(t, func(t *testing.T, disk string) {
		w := newStoreWorld(t, "pebble:"+filepath.Join(disk, "store"))
		w.feed(100, 200)
		w.finish()
		remount(t, disk, "ro")
		_, err := projection.Open(t.Context(), w.storeURL, projection.Identity{App: w.log.App(), Partitions: w.log.Partitions()})
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("open a store on a read-only disk: %v", err)
		}
		remount(t, disk, "rw")
		w = w.again()
		w.feed(100, 200)
		w.finish()
	})
}

func fullDisk(t *testing.T, which string) {
	onSmallDisk(t, func(t *testing.T, disk string) { fullUnder(t, which, disk) })
}

func fullUnder(t *testing.T, which, disk string) {
	dir := t.TempDir()
	where := map[string]string{"log": filepath.Join(dir, "log"), "store": filepath.Join(dir, "store")}
	where[which] = filepath.Join(disk, which)
	orders, rate := pick(2000, 400), pick(100.0, 50)
	if which == "store" { // memtables have the room for their logs beforehand
		where["log"] += "?partitions=4"
		where["store"] += "?memtables=12MiB"
		orders, rate = pick(5000, 1500), 300
	}
	job := task{
		Log: "file:" + where["log"], Store: "pebble:" + where["store"], Dir: dir, Name: "w",
		Orders: orders, Rate: rate, Serve: true, Feed: true, Shop: true,
	}
	w := launch(t, job)
	w.until(5*time.Minute, func(w *process) bool { return w.acknowledged >= job.Orders/4 })
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	before := w.acks()
	w.until(3*time.Second, func(*process) bool { return false })
	t.Logf("the disk was full for 3 s; %d starts acknowledged before, %d since; the worker ended: %v", before, w.acks()-before, w.ended())
	first := w
	if which == "store" && !first.ended() {
		first.says(5*time.Minute, "the disk takes no writes")
		first.stdin.Close()
		told := time.Now()
		first.until(5*time.Minute, func(*process) bool { return false })
		if t.Logf("it was told to end, and had %v later: %v", time.Since(told).Round(time.Second), first.ended()); !first.ended() {
			t.Error("told to end on the full disk, the worker did not")
		}
	}
	first.kill()
	w = launch(t, job)
	told := func() bool { return strings.Contains(first.said()+w.said(), "no space left on device") }
	for end := time.Now().Add(5 * time.Minute); !told() && time.Now().Before(end); {
		w.until(100*time.Millisecond, func(*process) bool { return false })
		pause(t.Context(), 10*time.Millisecond) // where it has ended
	}
	t.Logf("killed and started again on the full disk, it ended: %v", w.ended())
	if !told() {
		t.Errorf("the worker did not say what is wrong:\n%s", first.said()+w.said())
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.until(10*time.Second, func(*process) bool { return false })
	if t.Logf("10 s after the disk was freed it has ended: %v, %v", w.ended(), w.err); w.ended() && w.err != nil {
		w = launch(t, job)
	}
	w.wait(10 * time.Minute)
	report := check(t, job.Log, job.Orders, job.Store)
	t.Logf("%d events, %d violations", report.Events, report.Violations)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			if !strings.Contains(fmt.Sprint(err), "no space left") {
				t.Fatal(err)
			}
			return
		}
	}
}
