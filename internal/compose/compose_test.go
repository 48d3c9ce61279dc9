// Package compose holds the test of docker-compose.yml.
package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func load(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{file}, cli.WithConsistency(true), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	project, err := load(t, "../../docker-compose.yml")
	if err != nil {
		t.Fatalf("load docker-compose.yml: %v", err)
	}
	for name, port := range map[string]string{"kafka": "9092", "redis": "6379", "aerospike": "3000"} {
		s, ok := project.Services[name] // without profiles, or it would not be here
		if !ok {
			t.Errorf("service %s is missing", name)
			continue
		}
		if h := s.HealthCheck; h == nil || h.Disable || len(h.Test) < 2 {
			t.Errorf("service %s has no health check, so that up --wait would not wait for it", name)
		}
		if len(s.Ports) != 1 || s.Ports[0].Published != port {
			t.Errorf("service %s publishes %v, not %s", name, s.Ports, port)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("service %s publishes port %s on %q, not on the loopback alone", name, p.Published, p.HostIP)
			}
		}
		if image, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			t.Errorf("the image of %s is not pinned: %s", image, s.Image)
		}
		if s.ContainerName != "" {
			t.Errorf("service %s has a fixed container name, so that two checkouts can't run it", name)
		}
		if len(s.Volumes) == 0 {
			t.Errorf("service %s keeps its data in no volume", name)
		}
	}
	if len(project.Services) != 3 || len(project.DisabledServices) != 0 {
		t.Errorf("%d services, %d of them only with a profile; want three", len(project.Services), len(project.DisabledServices))
	}
}

// TestAerospike: nothing expires in it, and .ci/it-aerospike knows its namespace.
func TestAerospike(t *testing.T) {
	project, err := load(t, "../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	set := project.Services["aerospike"].Environment
	if ttl := set["DEFAULT_TTL"]; ttl == nil || *ttl != "0" {
		t.Error("DEFAULT_TTL of aerospike is not 0")
	}
	script, err := os.ReadFile("../../.ci/it-aerospike")
	if err != nil {
		t.Fatal(err)
	}
	if name := set["NAMESPACE"]; name == nil || !strings.Contains(string(script), "AEROSPIKE_NAMESPACE="+*name+" ") {
		t.Error(".ci/it-aerospike doesn't use the namespace of docker-compose.yml")
	}
}

// TestComposeMistakes shows that loading finds what it is there for.
func TestComposeMistakes(t *testing.T) {
	good, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"misspelt key":       {"healthcheck:", "helthcheck:"},
		"undeclared volume":  {"\n  redis-data:\n", "\n"},
		"dependency missing": {"    hostname: kafka\n", "    hostname: kafka\n    depends_on: [nothing]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(string(good), edit[0], edit[1], 1)
			if bad == string(good) {
				t.Fatalf("docker-compose.yml has no %q any more", edit[0])
			}
			file := filepath.Join(t.TempDir(), "docker-compose.yml")
			if err := os.WriteFile(file, []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := load(t, file); err == nil {
				t.Error("loaded")
			}
		})
	}
}
