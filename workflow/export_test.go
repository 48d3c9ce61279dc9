package workflow

import "github.com/godagger/dagger/internal/engine"

// Runs says whether Run works.
func Runs(e *Engine) bool { return e.run.(*engine.Engine).Running() }
