package engine

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/projection"
)

// TestSteady repeats what may pass, for a second, and nothing that the store means.
func TestSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		failing := func(n int, err error) func() error {
			calls = 0
			return func() error {
				if calls++; calls <= n {
					return err
				}
				return nil
			}
		}
		refused := errors.New("connection refused")
		if err := steady(t.Context(), failing(3, refused)); err != nil || calls != 4 {
			t.Errorf("a store that fails three times: %v after %d calls", err, calls)
		}
		began := time.Now()
		if err := steady(t.Context(), failing(1000, refused)); !errors.Is(err, refused) || time.Since(began) > storePatience {
			t.Errorf("a store that is away: %v after %v", err, time.Since(began))
		}
		fenced := fmt.Errorf("apply: %w", projection.ErrFenced)
		if err := steady(t.Context(), failing(1000, fenced)); !errors.Is(err, projection.ErrFenced) || calls != 1 {
			t.Errorf("a store that refuses: %v after %d calls", err, calls)
		}
	})
}
