//go:build !race

package engine

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// simWorldsFor makes worlds in which a rule matters more often.
var simWorldsFor = map[string]func(*simEnv){
	// Many folds panic, and the stores fall back, so that instances are frozen in recoveries.
	"projectFrozen": func(env *simEnv) { env.poison, env.move, env.crash, env.rewind, env.kill = 150, 150, 60, 60, 0 },
}

// simMutationSeeds is how many worlds are tried before a rule counts as not needed.
const simMutationSeeds = 400

// TestWithoutRule leaves out one rule of the protocol after the other: the auditor must
// notice each, or the rule is not needed, or the worlds are too friendly. The same world with
// the rule kept is clean.
func TestWithoutRule(t *testing.T) {
	for name, set := range simMutations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var rules simRules
			set(&rules)
			for seed := range uint64(simMutationSeeds) {
				env := simEnvOf(seed)
				if f := simWorldsFor[name]; f != nil {
					f(&env)
				}
				w := simRun(t, seed, env, rules, nil)
				if len(w.faults) > 0 {
					t.Logf("without %s, seed %d: %.300s", name, seed, w.faults[0])
					if kept := simRun(t, seed, env, simRules{}, nil); len(kept.faults) > 0 {
						t.Errorf("with the rule kept, too, seed %d: %s", seed, kept.faults[0])
					}
					return
				}
			}
			t.Errorf("nothing was noticed in %d worlds", simMutationSeeds)
		})
	}
}

// TestRulesAreNamed looks for a comment that names each rule with a switch where it is kept.
func TestRulesAreNamed(t *testing.T) {
	named := map[string]bool{}
	var switches string
	for _, pattern := range []string{"*.go", "../machine/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			text := regexp.MustCompile(`\n\s*// `).ReplaceAllString(string(data), " ")
			for _, m := range regexp.MustCompile(`(?i)protocol rules? (\d+(?:(?:, | and | to )\d+)*)`).FindAllStringSubmatch(text, -1) {
				for _, n := range regexp.MustCompile(`\d+`).FindAllString(m[1], -1) {
					named[n] = true
				}
			}
			if base := filepath.Base(name); base == "rules.go" || base == "owner.go" {
				switches += string(data)
			}
		}
	}
	found := regexp.MustCompile(`\w+ +bool // (\d+): `).FindAllStringSubmatch(switches, -1)
	if len(found) < 30 {
		t.Fatalf("%d switches were found", len(found))
	}
	for _, m := range found {
		if !named[m[1]] {
			t.Errorf("no comment names protocol rule %s, which %s leaves out", m[1], m[0])
		}
	}
}
