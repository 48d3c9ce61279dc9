package projection

import "fmt"

// MinKind is the least kind that a row may have; those below are for a backend's own rows.
const MinKind Kind = 0x10

// Check reports a batch that no store may apply, whatever it holds: one that goes back, one
// that changes rows without an event, and one that names counter rows in Put or Del. Every
// backend calls it first. That a row is named once only is the caller's promise.
func (b Batch) Check() error {
	if b.New.N < b.Expected {
		return fmt.Errorf("projection: batch goes back from event %d to %d", b.Expected, b.New.N)
	}
	if b.New.N == b.Expected && len(b.Put)+len(b.Del)+len(b.Add) > 0 {
		return fmt.Errorf("projection: batch changes rows without an event after %d", b.Expected)
	}
	for _, rows := range [][]Row{b.Put, b.Del} {
		for i := range rows {
			if rows[i].Kind == KindCount {
				return fmt.Errorf("projection: counter %q is changed only by Add", rows[i].Key)
			}
			if rows[i].Kind < MinKind {
				return fmt.Errorf("projection: kind %#x belongs to the backends", rows[i].Kind)
			}
		}
	}
	return nil
}

// Settles says what Apply has to do with a batch that passed Check, when the partition stands
// at have: write it (apply), or nothing because it was applied already (false, nil), or
// nothing because it doesn't fit: ErrFenced or a *WatermarkError. have.Epoch is the epoch
// that acquired the partition last. Protocol rule 25.
func (b Batch) Settles(have Watermark) (apply bool, err error) {
	switch {
	case b.New.Epoch != have.Epoch:
		return false, fmt.Errorf("%w: batch has epoch %d, the partition %d", ErrFenced, b.New.Epoch, have.Epoch)
	case have.N == b.Expected:
		return true, nil
	case have.N == b.New.N && have.Sum == b.New.Sum && have.LogID == b.New.LogID:
		return false, nil
	}
	return false, &WatermarkError{Have: have.N, Want: b.Expected}
}
