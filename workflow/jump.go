package workflow

import (
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// jump is where the flow goes by Goto or SkipTo.
type jump struct {
	path, target string
	option       string
}

// resolve finds the nodes that Goto and SkipTo name, and checks the ways to them.
func (c *compiler) resolve(nodes []machine.Node) {
	tree := map[string]*machine.Node{"": {Kind: eventlog.Process}}
	var index func(nodes []machine.Node)
	index = func(nodes []machine.Node) {
		for k := range nodes {
			tree[nodes[k].Path] = &nodes[k]
			index(nodes[k].Nodes)
		}
	}
	index(nodes)
	for _, j := range c.jumps {
		target, ok := beside(tree, j)
		switch {
		case !ok:
			c.mistake(j.path, "%s: there is no node %q beside it or beside what is around it", j.option, j.target)
		case j.option == "SkipTo":
			c.skipTo(tree, j, target)
		default:
			c.goTo(tree, j, target)
		}
	}
}

// beside looks for the target beside the node, then beside each node around it; not beyond the
// run of a ForEach or Dynamic that the node is in.
func beside(tree map[string]*machine.Node, j jump) (path string, ok bool) {
	for at := j.path; at != ""; {
		if strings.HasSuffix(at, "[]") {
			return "", false
		}
		at = above(at)
		path = j.target
		if at != "" {
			path = at + "/" + j.target
		}
		// Of a run of a Dynamic only the process that was chosen is there.
		if of, item := strings.CutSuffix(at, "[]"); item && tree[of].Kind == eventlog.Dynamic && !strings.HasPrefix(j.path+"/", path+"/") {
			return "", false
		}
		if tree[path] != nil && j.target != "" {
			return path, true
		}
	}
	return "", false
}

// above is the path of what is around a node.
func above(path string) string {
	if of, item := strings.CutSuffix(path, "[]"); item {
		return of
	}
	return path[:max(strings.LastIndexByte(path, '/'), 0)]
}

func (c *compiler) skipTo(tree map[string]*machine.Node, j jump, target string) {
	if target != j.path && !strings.HasPrefix(j.path, target+"/") {
		c.mistake(j.path, "SkipTo(%q) is neither this task nor a process around it", j.target)
		return
	}
	tree[j.path].SkipTo = target
}

func (c *compiler) goTo(tree map[string]*machine.Node, j jump, target string) {
	// The innermost node around both.
	common := above(target)
	for common != "" && !strings.HasPrefix(j.path, common+"/") || common == j.path {
		common = above(common)
	}
	for at := target; at != common; {
		at = above(at)
		if n := tree[at]; n.Kind != eventlog.Process {
			c.mistake(j.path, "Goto(%q) leads into or through %s, a node of kind %s: only processes can be entered in their middle", j.target, at, n.Kind)
			return
		}
	}
	tree[j.path].Goto = target
}
