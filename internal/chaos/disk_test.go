package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mountedVar says that this process has a mount table of its own.
const mountedVar = "DAGGER_CHAOS_MOUNTED"

// TestFullDiskUnderLogEmbedded fills the disk of the log under load and frees it later. The
// worker says what is wrong; nothing acknowledged is lost, and it goes on.
func TestFullDiskUnderLogEmbedded(t *testing.T) { fullDisk(t, "log") }

// TestFullDiskUnderStoreEmbedded does the same to the disk of the store.
func TestFullDiskUnderStoreEmbedded(t *testing.T) { fullDisk(t, "store") }

func fullDisk(t *testing.T, which string) {
	begin(t)
	if os.Getenv(mountedVar) == "" {
		// The small disk is mounted where only this copy of the test sees it, and ends with it.
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
	dir := t.TempDir()
	disk := filepath.Join(dir, which)
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256m", "none", disk).CombinedOutput(); err != nil {
		t.Skipf("mount a small disk: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", disk).Run() }) // else its directory can't be removed
	job := task{
		Log: "file:" + filepath.Join(dir, "log"), Store: "pebble:" + filepath.Join(dir, "store"), Dir: dir, Name: "w",
		Orders: pick(2000, 400), Rate: pick(100.0, 50), Serve: true, Feed: true, Shop: true,
	}
	w := launch(t, job)
	w.until(time.Minute, func(w *process) bool { return w.acknowledged >= job.Orders/4 })
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	before := w.acks()
	w.until(3*time.Second, func(*process) bool { return false })
	t.Logf("the disk was full for 3 s; %d starts acknowledged before, %d since; the worker ended: %v", before, w.acks()-before, w.ended())
	first := w
	first.kill()
	w = launch(t, job)
	w.until(3*time.Second, func(*process) bool { return false })
	t.Logf("killed and started again on the full disk, it ended: %v", w.ended())
	if said := first.said() + w.said(); !strings.Contains(said, "no space left on device") {
		t.Errorf("the worker did not say what is wrong:\n%s", said)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.until(10*time.Second, func(*process) bool { return false })
	if t.Logf("10 s after the disk was freed it has ended: %v, %v", w.ended(), w.err); w.ended() && w.err != nil {
		w = launch(t, job)
	}
	w.wait(2 * time.Minute)
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
