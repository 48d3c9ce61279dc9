package webui

import (
	"errors"
	"net/http"
	"path/filepath"
	"regexp"

	"github.com/godagger/dagger/workflow"
)

// checkpointName is what a checkpoint may be called: no path gets out of the directory.
var checkpointName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$`)

// checkpointed is the answer.
type checkpointed struct {
	Directory string           `json:"directory"`
	AsOf      map[int32]uint64 `json:"asOf"` // event numbers, by partition
}

// checkpoint copies the engine's store into a new directory below Options.Checkpoints, on the
// engine's machine.
func (s *server) checkpoint(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if p := unknown(q, "name"); p != nil {
		fail(w, *p)
		return
	}
	name := q.Get("name")
	if !checkpointName.MatchString(name) {
		fail(w, bad("name is needed: letters, digits, -, _ and single dots"))
		return
	}
	target := filepath.Join(s.Checkpoints, name)
	asOf, err := s.eng.Checkpoint(r.Context(), target)
	switch {
	case errors.Is(err, workflow.ErrNoCheckpoints):
		fail(w, problem{Status: http.StatusNotImplemented, Code: "no_checkpoints", Detail: err.Error()})
	case err != nil:
		fail(w, problem{Status: http.StatusConflict, Code: "checkpoint_failed", Detail: err.Error()})
	default:
		send(w, http.StatusOK, checkpointed{target, asOf})
	}
}
