package engine

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLettersAreToldSeldom: the first dead letter is told at once, the others once a minute, and
// all are counted.
func TestLettersAreToldSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		counted := 0
		e, err := New(t.Context(), Config{Log: memLog(t), Store: memStore(t), Logger: slog.New(slog.NewTextHandler(&out, nil)),
			Observer: Observer{DeadLetter: func() { counted++ }}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for range 1000 {
			e.cfg.Observer.DeadLetter()
		}
		told := func(times, count int) {
			t.Helper()
			s := out.String()
			if strings.Count(s, "were set aside") != times || !strings.HasSuffix(s, fmt.Sprintf(" count=%d\n", count)) {
				t.Errorf("want %d lines, the last with %d:\n%s", times, count, s)
			}
		}
		told(1, 1)
		time.Sleep(letterNews)
		e.cfg.Observer.DeadLetter()
		told(2, 1000)
		if counted != 1001 {
			t.Errorf("counted %d", counted)
		}
	})
}
