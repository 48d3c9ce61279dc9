package webui

import (
	"context"
	"net/http"
	"time"

	"github.com/godagger/dagger/workflow"
)

// verified is the result of a verification.
type verified struct {
	Partitions  int              `json:"partitions"`
	Events      int64            `json:"events"`
	Instances   int64            `json:"instances"`
	Differences int64            `json:"differences"`
	Unindexed   int64            `json:"unindexed,omitempty"`
	AsOf        map[int32]uint64 `json:"asOf"`
	First       []rowDifference  `json:"first"`
}

// rowDifference is a row of the store that is not what the log says.
type rowDifference struct {
	Partition int32    `json:"partition"`
	Text      string   `json:"text"`
	Changes   []change `json:"changes,omitempty"` // from what the log says to what the store has
}

// verify compares the store with the log.
func (s *operations) verify(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Partitions []int32 `json:"partitions"`
	}
	p := body(w, r, &in, true)
	var total int64
	if p == nil {
		_, total, p = s.partitions(r.Context(), in.Partitions)
	}
	if p != nil {
		fail(w, *p)
		return
	}
	s.begin(w, r, "verify", "records", total, func(ctx context.Context, o *operation) (any, error) {
		v, err := s.eng.Verify(ctx, workflow.VerifyOptions{Partitions: in.Partitions, Progress: s.progress(o)})
		if err != nil {
			return nil, err
		}
		x := verified{v.Partitions, v.Events, v.Instances, v.Differences, v.Unindexed, v.AsOf, []rowDifference{}}
		for _, d := range v.First {
			y := rowDifference{Partition: d.Partition, Text: d.Text}
			for _, c := range d.Changes {
				y.Changes = append(y.Changes, changeOf(c))
			}
			x.First = append(x.First, y)
		}
		return x, nil
	})
}

// rebuilt is what a rebuild did with a partition.
type rebuilt struct {
	Partition int32  `json:"partition"`
	Events    int64  `json:"events"`
	AsOf      uint64 `json:"asOf"`
	From      uint64 `json:"from,omitempty"`    // up to which a snapshot, or an earlier attempt, already was
	ByOwner   bool   `json:"byOwner,omitempty"` // its owner folded it
}

// rebuild folds partitions of the store again.
func (s *operations) rebuild(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Partitions []int32 `json:"partitions"`
		Parallel   int     `json:"parallel"`
		Resume     bool    `json:"resume"`
		Snapshots  bool    `json:"snapshots"`
	}
	p := body(w, r, &in, true)
	if p == nil && in.Parallel < 0 {
		x := bad("parallel is negative")
		p = &x
	}
	var total int64
	if p == nil {
		in.Partitions, total, p = s.partitions(r.Context(), in.Partitions)
	}
	if p != nil {
		fail(w, *p)
		return
	}
	build := s.eng.Rebuild
	if in.Snapshots {
		build = s.eng.RebuildFromSnapshots
	}
	s.begin(w, r, "rebuild", "records", total, func(ctx context.Context, o *operation) (any, error) {
		done, err := build(ctx, workflow.RebuildOptions{Partitions: in.Partitions, Parallel: in.Parallel, Resume: in.Resume, Progress: s.progress(o)})
		if err != nil {
			return nil, err
		}
		l := []rebuilt{}
		for _, x := range done {
			l = append(l, rebuilt{x.Partition, x.Events, x.AsOf, x.From, x.ByOwner})
		}
		return l, nil
	})
}

// snapshot is a copy of a partition in the bucket.
type snapshot struct {
	Partition int32     `json:"partition"`
	AsOf      uint64    `json:"asOf"`
	Taken     time.Time `json:"taken"`
	Rows      int64     `json:"rows"`
	Bytes     int64     `json:"bytes"`
	SHA256    string    `json:"sha256"`
	Object    string    `json:"object"`
}

func snapshotsOf(l []workflow.Snapshot) []snapshot {
	out := []snapshot{}
	for _, x := range l {
		out = append(out, snapshot{x.Partition, x.AsOf, x.Taken, x.Rows, x.Bytes, x.SHA256, x.Object})
	}
	return out
}

func (s *operations) takeSnapshots(w http.ResponseWriter, r *http.Request) {
	var none struct{}
	if p := body(w, r, &none, true); p != nil {
		fail(w, *p)
		return
	}
	// A bucket that is missing, or can't be reached, is told at once.
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	if _, err := s.eng.Snapshots(ctx); err != nil {
		fail(w, problemOf(err))
		return
	}
	partitions := len(s.eng.Partitions())
	if partitions == 0 {
		partitions = int(s.eng.Log().Partitions())
	}
	s.begin(w, r, "snapshots", "partitions", int64(partitions), func(ctx context.Context, o *operation) (any, error) {
		progress := s.progress(o)
		l, err := s.eng.TakeSnapshots(ctx, func(done, total int) { progress(0, int64(done), int64(total)) })
		if err != nil {
			return nil, err
		}
		return snapshotsOf(l), nil
	})
}

func (s *operations) snapshots(w http.ResponseWriter, r *http.Request) {
	if p := unknown(r.URL.Query()); p != nil {
		fail(w, *p)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	l, err := s.eng.Snapshots(ctx)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	send(w, http.StatusOK, map[string]any{"snapshots": snapshotsOf(l)})
}
