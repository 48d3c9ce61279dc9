package machine

import (
	"fmt"
	"sort"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// chained checks that an event names the one before it of each instance that it changes.
func (p *part) chained(e *eventlog.Event) error {
	last := func(id string) uint64 {
		if i := p.shadow.Instances[id]; i != nil {
			return i.N
		}
		return 0
	}
	own := ""
	if e.ID != "" && instancePart(e) {
		own = e.ID
	}
	if want := p.shadow.Before(e); e.Prev != want || own == "" && e.Prev > 0 {
		return fmt.Errorf("prev %d, the event before is %d", e.Prev, want)
	}
	if e.Pos == nil {
		return nil
	}
	for _, r := range e.Pos.Refused {
		want := last(r.ID)
		if r.ID == own {
			want = 0
		}
		if r.Prev != want {
			return fmt.Errorf("prev %d of the call %s to %s, the event before is %d", r.Prev, r.Request, r.ID, want)
		}
	}
	return nil
}

// store writes the rows that changed, and the index entries that follow from them.
func (p *part) store() {
	all := p.shadow
	for row := range all.Changed {
		name, value := rowOf(all, row)
		if old, ok := p.rows[name]; ok {
			p.index(row, old, -1)
		}
		if value == "" {
			delete(p.rows, name)
		} else {
			p.rows[name] = value
			p.index(row, value, 1)
		}
	}
	all.ForgetChanged()
}

func (p *part) index(row Row, value string, by int) {
	var dues []Due
	switch row.Kind {
	case RowInstance:
		var i Instance
		mustUnmarshal(value, &i)
		dues = i.Dues()
		if by > 0 && len(i.Works()) > 0 {
			p.works[i.ID] = i.Works()
		} else {
			delete(p.works, i.ID)
		}
	case RowKept:
		var k Kept
		mustUnmarshal(value, &k)
		dues = []Due{k.Due(row.Key)}
	}
	for _, d := range dues {
		if p.dues[d] += by; p.dues[d] == 0 {
			delete(p.dues, d)
		}
	}
}

// rowOf is a row's name and value; "" when there is none.
func rowOf(s *State, row Row) (name, value string) {
	switch row.Kind {
	case RowInstance:
		name = "instance " + row.ID
		if i := s.Instances[row.ID]; i != nil {
			value = mustMarshal(i)
		}
	case RowPlan:
		name, value = "plan "+row.ID, string(s.Plans[row.ID].Recorded())
	case RowPosition:
		name, value = "position", fmt.Sprint(s.RequestsID, s.Offset, s.Forwarded, s.Epoch)
	case RowSource:
		name, value = fmt.Sprint("source ", row.Source), mustMarshal(s.Sources[row.Source])
	case RowAckDue:
		name = fmt.Sprint("ackdue ", row.Partition)
		if m, ok := s.AckDue[row.Partition]; ok {
			value = mustMarshal(m)
		}
	case RowWaiter:
		name = fmt.Sprint("waiter ", row.Key, row.N)
		if x := s.Keys[row.Key].Waiter(row.N); x != nil {
			value = mustMarshal(x)
		}
	case RowKept:
		name = fmt.Sprint("kept ", row.Key, row.N)
		if x := s.Keys[row.Key].Message(row.N); x != nil {
			value = mustMarshal(x)
		}
	case RowMatched:
		name = fmt.Sprint("matched ", row.N)
		if x := s.Matched[row.N]; x != nil {
			value = mustMarshal(x)
		}
	}
	return name, value
}

// allRows are the rows of the whole state.
func allRows(s *State) map[string]string {
	rows := map[string]string{}
	add := func(r Row) {
		if name, value := rowOf(s, r); value != "" {
			rows[name] = value
		}
	}
	add(Row{Kind: RowPosition})
	for id := range s.Instances {
		add(Row{Kind: RowInstance, ID: id})
	}
	for hash := range s.Plans {
		add(Row{Kind: RowPlan, ID: hash})
	}
	for source := range s.Sources {
		add(Row{Kind: RowSource, Source: source})
	}
	for k := range s.AckDue {
		add(Row{Kind: RowAckDue, Partition: k})
	}
	for key, k := range s.Keys {
		for _, x := range k.Waiters {
			add(Row{Kind: RowWaiter, Key: key, N: x.N})
		}
		for _, x := range k.Kept {
			add(Row{Kind: RowKept, Key: key, N: x.Msg})
		}
	}
	for n := range s.Matched {
		add(Row{Kind: RowMatched, N: n})
	}
	return rows
}

// same compares the live state with the shadow and with what a store would have.
func (w *world) same() error {
	for _, p := range w.parts {
		live, shadow := dump(p.s), dump(p.shadow)
		if diff := cmp.Diff(lines(live), lines(shadow)); diff != "" {
			return fmt.Errorf("partition %d: replay differs from live (-live +replay):\n%s", p.s.Partition, diff)
		}
		if diff := cmp.Diff(allRows(p.shadow), p.rows); diff != "" {
			return fmt.Errorf("partition %d: rows that changed don't make the state (-state +rows):\n%s", p.s.Partition, diff)
		}
		dues, works := map[Due]int{}, map[string][]Work{}
		for id, i := range p.shadow.Instances {
			if i == nil {
				continue
			}
			for _, d := range i.Dues() {
				dues[d]++
			}
			if l := i.Works(); len(l) > 0 {
				works[id] = l
			}
		}
		for key, k := range p.shadow.Keys {
			for _, m := range k.Kept {
				dues[m.Due(key)]++
			}
		}
		if diff := cmp.Diff(dues, p.dues); diff != "" {
			return fmt.Errorf("partition %d: due index (-state +index):\n%s", p.s.Partition, diff)
		}
		if diff := cmp.Diff(works, p.works); diff != "" {
			return fmt.Errorf("partition %d: run index (-state +index):\n%s", p.s.Partition, diff)
		}
	}
	return nil
}

// reload makes the twin from the stored rows, as a new owner does.
func (p *part) reload() {
	s := NewState(p.s.Partition, p.s.Partitions)
	s.Inject = p.twin.Inject
	s.N, s.At, s.Epoch, s.RequestsID, s.Offset, s.Forwarded = p.s.N, p.s.At, p.s.Epoch, p.s.RequestsID, p.s.Offset, p.s.Forwarded
	for hash, plan := range p.s.Plans {
		if err := s.AddPlan(hash, plan.Recorded()); err != nil {
			panic(err)
		}
	}
	for k, v := range p.s.Sources {
		s.Sources[k] = v
	}
	for k, v := range p.s.AckDue {
		s.AckDue[k] = v
	}
	for id, i := range p.s.Instances {
		if i != nil {
			c := &Instance{}
			mustUnmarshal(mustMarshal(i), c)
			s.Instances[id] = c
		}
	}
	for key, k := range p.s.Keys {
		c := &KeyState{}
		mustUnmarshal(mustMarshal(k), c)
		s.Keys[key] = c
	}
	var matched []*Matched
	for _, m := range p.s.Matched {
		c := &Matched{}
		mustUnmarshal(mustMarshal(m), c)
		matched = append(matched, c)
	}
	s.Restore(matched)
	p.twin = s
}

// dump is everything that a state knows, one fact a line. Of a quarantined instance only
// what survives the quarantine counts; protocol rule 12.
func dump(s *State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "n %d at %d epoch %d requests %s %d forwarded %d\n", s.N, s.At, s.Epoch, s.RequestsID, s.Offset, s.Forwarded)
	var l []string
	for name, value := range allRows(s) {
		if id, ok := strings.CutPrefix(name, "instance "); ok {
			if i := s.Instances[id]; i.Quarantined != "" {
				value = fmt.Sprint(mustMarshal(i.Mailbox), i.N, i.Seq)
			}
		}
		l = append(l, name+" "+value)
	}
	for msg := range s.fans {
		l = append(l, fmt.Sprint("fan-out ", msg))
	}
	for to, d := range s.unacked {
		for _, x := range d {
			if s.Matched[x.msg] != nil {
				l = append(l, fmt.Sprint("unacked ", to, " ", x.mark, " ", x.msg))
			}
		}
	}
	sort.Strings(l)
	b.WriteString(strings.Join(l, "\n"))
	return b.String()
}
