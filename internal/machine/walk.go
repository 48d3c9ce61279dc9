package machine

import "github.com/godagger/dagger/eventlog"

// Walk visits the nodes of an instance in the order of the plan: its tasks, and of the others
// those that have a status. What runs more than once is visited as often as it was begun; as
// long as that is not known, once under the plan's path.
func (p *Plan) Walk(i *Instance, visit func(path string, n *Node, s Status)) {
	w := walk{i: i, visit: visit, status: make(map[string]Status, len(i.Tasks))}
	for _, t := range i.Tasks {
		w.status[t.Path] = t.Status
	}
	root := place{n: &p.root}
	for k := range root.n.Nodes {
		w.node(root.child(k))
	}
}

type walk struct {
	i      *Instance
	visit  func(path string, n *Node, s Status)
	status map[string]Status
}

func (w *walk) node(pl place) {
	s, has := w.status[pl.path]
	if !has {
		s = NotStarted
	}
	switch pl.n.Kind {
	case eventlog.Process, eventlog.Parallel:
		if has {
			w.visit(pl.path, pl.n, s)
		}
	default:
		w.visit(pl.path, pl.n, s)
	}
	for k := range pl.n.Attached {
		a := pl.attachment(k)
		if s, has := w.status[a.path]; has || a.n.Kind == eventlog.Monitor {
			if !has {
				s = NotStarted
			}
			w.visit(a.path, a.n, s)
		}
	}
	switch pl.n.Kind {
	case eventlog.ForEach:
		w.items(pl, s)
	case eventlog.Dynamic:
		w.runs(pl)
	default:
		for k := range pl.n.Nodes {
			w.node(pl.child(k))
		}
	}
}

// items visits the runs of a ForEach. Of those that have done their work nothing more is known.
func (w *walk) items(pl place, s Status) {
	items := w.i.ItemsOf(pl.path)
	if items == nil {
		if s == NotStarted || s == Executing {
			w.inside(place{&pl.n.Nodes[0], pl.path + "[]"})
		}
		return
	}
	for k := range items.Values {
		item := pl.item(k)
		switch s := itemStatus(items.States[k]); s {
		case "":
			w.visit(item.path, item.n, NotStarted)
		case Completed, Skipped:
			w.visit(item.path, item.n, s)
		default:
			w.visit(item.path, item.n, s)
			w.inside(item)
		}
	}
}

func (w *walk) runs(pl place) {
	t := w.i.Task(pl.path)
	if t == nil || len(t.Choices) == 0 {
		if t == nil || t.Status == Executing {
			w.inside(place{&pl.n.Nodes[0], pl.path + "[]"})
		}
		return
	}
	for k := range t.Choices {
		if c, ok := pl.item(k).chosen(t.Choices); ok {
			w.node(c)
		}
	}
}

func (w *walk) inside(item place) {
	for k := range item.n.Nodes {
		w.node(item.child(k))
	}
}
