package workflow_test

import (
	"testing"

	"github.com/godagger/dagger/workflow"
)

// TestIDFrom freezes what seeds give: ids of instances that exist come from them.
func TestIDFrom(t *testing.T) {
	for seed, want := range map[string]string{
		"":                  "b684aec9-5050-5cb5-a2fb-14b381ddc9e7",
		"orders_topic/0/17": "2da69a5f-3125-5879-94b1-ca75e0da24cd",
		"orders_topic/0/18": "8f9ff5a3-4794-5050-b34a-245a26022cf0",
	} {
		if got := workflow.IDFrom(seed); got != want {
			t.Errorf("%q gives %s, want %s", seed, got, want)
		}
	}
}
