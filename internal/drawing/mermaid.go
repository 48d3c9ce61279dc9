package drawing

import (
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Mermaid is the plan as a flowchart that Mermaid draws: arrows where one node follows
// another, dotted ones where a failure leads, boxes around what runs in a node.
func Mermaid(p *machine.Plan, i *machine.Instance) string {
	m := mermaid{ids: map[string]string{}, status: statuses(p, i)}
	m.line("flowchart TD")
	m.sequence(p.Root, 1)
	m.jumps(p.Root)
	for _, s := range []struct{ status, style string }{
		{"COMPLETED", "fill:#c8e6c9"}, {"EXECUTING", "fill:#bbdefb"}, {"FAILURE", "fill:#ffcdd2"},
		{"SKIPPED", "fill:#eeeeee,stroke-dasharray:4"}, {"STOPPED", "fill:#ffe0b2"},
	} {
		if strings.Contains(m.b.String(), ":::"+s.status+"\n") {
			m.line("    classDef %s %s", s.status, s.style)
		}
	}
	return m.b.String()
}

type mermaid struct {
	b      strings.Builder
	ids    map[string]string
	status map[string]machine.Status
}

func (m *mermaid) line(format string, args ...any) { fmt.Fprintf(&m.b, format+"\n", args...) }

// id names a node: paths have characters that mean something to Mermaid.
func (m *mermaid) id(path string) string {
	id, ok := m.ids[path]
	if !ok {
		id = fmt.Sprint("n", len(m.ids))
		m.ids[path] = id
	}
	return id
}

// sequence draws nodes with arrows between them.
func (m *mermaid) sequence(nodes []machine.Node, depth int) {
	m.nodes(nodes, depth)
	for k := 1; k < len(nodes); k++ {
		m.line("%s%s --> %s", indent(depth), m.id(nodes[k-1].Path), m.id(nodes[k].Path))
	}
}

func (m *mermaid) nodes(nodes []machine.Node, depth int) {
	for k := range nodes {
		m.node(&nodes[k], depth)
	}
}

func (m *mermaid) node(n *machine.Node, depth int) {
	id, label := m.id(n.Path), m.label(n)
	if len(n.Nodes) == 0 {
		open, end := shape(n.Kind)
		m.line("%s%s%s%s%s%s", indent(depth), id, open, label, end, m.class(n.Path))
	} else {
		m.line("%ssubgraph %s[%s]", indent(depth), id, label)
		inside := n.Nodes
		if n.Kind == eventlog.ForEach || n.Kind == eventlog.Dynamic {
			inside = n.Nodes[0].Nodes
		}
		if n.Kind == eventlog.Process || n.Kind == eventlog.ForEach {
			m.sequence(inside, depth+1)
		} else {
			m.nodes(inside, depth+1)
		}
		m.line("%send", indent(depth))
		if c := m.class(n.Path); c != "" {
			m.line("%sclass %s %s", indent(depth), id, strings.TrimPrefix(c, ":::"))
		}
	}
	for k := range n.Attached {
		a := &n.Attached[k]
		m.line("%s%s>%s]%s", indent(depth), m.id(a.Path), m.label(a), m.class(a.Path))
		m.line("%s%s -.- %s", indent(depth), m.id(a.Path), id)
	}
}

func (m *mermaid) class(path string) string {
	if s := m.status[path]; s != "" && s != machine.NotStarted {
		return ":::" + string(s)
	}
	return ""
}

func (m *mermaid) label(n *machine.Node) string {
	text := n.Path[strings.LastIndexAny(n.Path, "/@")+1:] + "<br/>" + string(n.Kind)
	if says := Says(n); says != "" {
		text += ": " + says
	}
	return `"` + strings.NewReplacer(`"`, "#quot;", "[", "#91;", "]", "#93;").Replace(text) + `"`
}

// jumps are the ways that failures and early messages take.
func (m *mermaid) jumps(nodes []machine.Node) {
	for k := range nodes {
		n := &nodes[k]
		if n.Goto != "" {
			m.line("    %s -. failed .-> %s", m.id(n.Path), m.id(n.Goto))
		}
		m.jumps(n.Nodes)
	}
}

func shape(k eventlog.Kind) (open, end string) {
	switch k {
	case eventlog.Listen:
		return "[/", "/]"
	case eventlog.Command:
		return "[\\", "\\]"
	case eventlog.At, eventlog.Every:
		return "([", "])"
	}
	return "[", "]"
}

func indent(depth int) string { return strings.Repeat("    ", depth) }
