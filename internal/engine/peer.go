package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Workers with stores of their own ask each other for what these have, over HTTP: who is
// asked tells what is in its own store and asks nobody else, so that no question goes in a
// circle. What is asked is what the filter of List and Count says, and for which partitions.

// PeerPath is where a worker's address answers other workers.
const PeerPath = "/peers/v1/"

const (
	listPath     = "instances"
	countPath    = "counts"
	instancePath = "instance"
)

// Codes of problems that the asker acts on.
const (
	codeElsewhere = "elsewhere"
	codeNotFound  = "not_found"
)

// peerProblem is why there is no answer.
type peerProblem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (p *peerProblem) Error() string { return p.Detail }

// query is the filter as a peer is asked for it.
func (f *Filter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"definition": f.Definition, "status": f.Status, "prefix": f.IDPrefix, "cursor": f.Cursor} {
		if value != "" {
			q.Set(name, value)
		}
	}
	q.Set("limit", strconv.Itoa(f.most()))
	for p, n := range f.AtLeast {
		q.Add("atLeast", fmt.Sprintf("%d:%d", p, n))
	}
	return q
}

// question is what a peer asks.
type question struct {
	partitions []int32
	filter     Filter
}

func (e *Engine) question(q url.Values) (x question, err error) {
	defer func() {
		if err != nil {
			err = &peerProblem{http.StatusBadRequest, "bad_request", err.Error()}
		}
	}()
	x.filter = Filter{Definition: q.Get("definition"), Status: q.Get("status"), IDPrefix: q.Get("prefix"), Cursor: q.Get("cursor")}
	if x.filter.Limit, err = strconv.Atoi(q.Get("limit")); err != nil {
		return x, fmt.Errorf("limit: %w", err)
	}
	partition := func(s string) (int32, error) {
		p, err := strconv.ParseInt(s, 10, 32)
		if err == nil && (p < 0 || p >= int64(e.log.Partitions())) {
			err = fmt.Errorf("there are %d partitions", e.log.Partitions())
		}
		return int32(p), err
	}
	for _, s := range q["partition"] {
		p, err := partition(s)
		if err != nil {
			return x, fmt.Errorf("partition %q: %w", s, err)
		}
		if !slices.Contains(x.partitions, p) {
			x.partitions = append(x.partitions, p)
		}
	}
	for _, s := range q["atLeast"] {
		at, number, _ := strings.Cut(s, ":")
		p, err := partition(at)
		n, err2 := strconv.ParseUint(number, 10, 64)
		if err = errors.Join(err, err2); err != nil {
			return x, fmt.Errorf("atLeast %q: %w", s, err)
		}
		if x.filter.AtLeast == nil {
			x.filter.AtLeast = map[int32]uint64{}
		}
		x.filter.AtLeast[p] = n
	}
	return x, nil
}

// Peers answers other workers of the same log that ask for what is in the store of this one,
// under PeerPath.
func (e *Engine) Peers() http.Handler {
	mux := http.NewServeMux()
	answer := func(path string, f func(context.Context, url.Values) (any, error)) {
		mux.HandleFunc("GET "+PeerPath+path, func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if log := q.Get("log"); log != e.eventsID {
				refusePeer(w, &peerProblem{http.StatusConflict, "other_log", "this worker is of application " + e.log.App() + " and another log"})
				return
			}
			x, err := f(r.Context(), q)
			if err != nil {
				refusePeer(w, problemOfPeer(err))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(x) // who asked went away
		})
	}
	answer(listPath, func(ctx context.Context, q url.Values) (any, error) {
		x, err := e.question(q)
		if err == nil {
			err = e.mine(ctx, x.partitions)
		}
		if err != nil {
			return nil, err
		}
		all, err := readEntries(ctx, e.store, x.partitions, x.filter)
		all.LogID = e.eventsID
		return all, err
	})
	answer(countPath, func(ctx context.Context, q url.Values) (any, error) {
		x, err := e.question(q)
		if err == nil {
			err = e.mine(ctx, x.partitions)
		}
		if err != nil {
			return nil, err
		}
		c := counted{LogID: e.eventsID}
		c.Counts, c.AsOf, err = readCount(ctx, e.store, x.partitions, x.filter)
		return c, err
	})
	answer(instancePath, func(ctx context.Context, q url.Values) (any, error) {
		id := q.Get("id")
		if err := eventlog.ValidateID(id); err != nil {
			return nil, &peerProblem{http.StatusBadRequest, "bad_request", err.Error()}
		}
		p := eventlog.PartitionOf(id, e.log.Partitions())
		x, err := e.ask(ctx, p, unit{request: eventlog.Request{ID: id}, offset: -1, read: true})
		if errors.Is(err, errMoved) {
			err = &ElsewhereError{Partition: p, Worker: "another"}
		}
		return peerInstance{LogID: e.eventsID, Instance: x.instance}, err
	})
	return mux
}

// peerInstance is one instance, as its owner has it.
type peerInstance struct {
	LogID    string            `json:"log"`
	Instance *machine.Instance `json:"instance"`
}

func (x peerInstance) log() string { return x.LogID }

// mine refuses partitions that this store does not have.
func (e *Engine) mine(ctx context.Context, partitions []int32) error {
	_, others, err := e.divide(ctx, partitions)
	for p, o := range others {
		return &ElsewhereError{Partition: p, Worker: o.worker, Address: o.address}
	}
	return err
}

func problemOfPeer(err error) *peerProblem {
	if p, ok := errors.AsType[*peerProblem](err); ok {
		return p
	}
	if _, ok := errors.AsType[*ElsewhereError](err); ok {
		return &peerProblem{http.StatusServiceUnavailable, codeElsewhere, err.Error()}
	}
	if errors.Is(err, ErrNotFound) {
		return &peerProblem{http.StatusNotFound, codeNotFound, err.Error()}
	}
	return &peerProblem{http.StatusInternalServerError, "internal", err.Error()}
}

func refusePeer(w http.ResponseWriter, p *peerProblem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who asked went away
}
