package engine

import (
	"log/slog"
	"sync"
	"time"
)

// letterNews is how often the engine's log tells of dead letters.
const letterNews = time.Minute

// letters tells the engine's log that there are dead letters: their topic has each with its reason,
// and rubbish may come by the thousand.
type letters struct {
	logger *slog.Logger
	next   func() // or nil

	mu    sync.Mutex
	told  time.Time
	count int // since then
}

// add counts one. It may be called from several goroutines.
func (l *letters) add() {
	if l.next != nil {
		l.next()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if now := time.Now(); l.told.IsZero() || now.Sub(l.told) >= letterNews {
		l.logger.Warn("messages or requests were set aside; the dead-letter topic (daggerctl deadletters) has them with their reasons", "count", l.count)
		l.told, l.count = now, 0
	}
}
