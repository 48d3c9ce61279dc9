package memstore

import "github.com/godagger/dagger/projection"

// FailNext makes the next Apply, Get or Scan of any partition return err and do nothing.
func (s *Store) FailNext(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failNext = err
}

// LoseReply makes the next Apply that writes return ErrReplyLost although it has written.
func (s *Store) LoseReply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseReply = true
}

// Rewind takes the last applies of a partition back, as a crash does to a store that doesn't
// sync, and returns where it stands then. It takes back as many as Options.History kept.
func (s *Store) Rewind(p int32, steps int) projection.Watermark {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := s.parts[p]
	if part == nil {
		return projection.Watermark{}
	}
	for ; steps > 0 && len(part.undo) > 0; steps-- {
		last := len(part.undo) - 1
		part.takeBack(part.undo[last])
		part.undo = part.undo[:last]
	}
	return part.watermark
}

// Wipe empties a partition behind everybody's back, as a server that forgot it does. The
// epoch stays.
func (s *Store) Wipe(p int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if part := s.parts[p]; part != nil {
		part.empty()
	}
}

func (s *Store) takeFailure() error {
	s.mu.RLock()
	none := s.failNext == nil
	s.mu.RUnlock()
	if none {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failNext
	s.failNext = nil
	return err
}
