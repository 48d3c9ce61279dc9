package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// surface lists what a package in a directory exports, one line for each name, sorted.
func surface(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := lister{fset: token.NewFileSet()}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".go" || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.fset, filepath.Join(dir, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				s.function(d)
			case *ast.GenDecl:
				s.declaration(d)
			}
		}
	}
	slices.Sort(s.lines)
	return s.lines, nil
}

type lister struct {
	fset  *token.FileSet
	lines []string
}

func (s *lister) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// text prints a node on one line.
func (s *lister) text(n any) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, s.fset, n); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func (s *lister) function(d *ast.FuncDecl) {
	if !d.Name.IsExported() {
		return
	}
	signature := strings.TrimPrefix(s.text(d.Type), "func")
	if d.Recv == nil {
		s.add("func %s%s", d.Name, signature)
		return
	}
	receiver := s.text(d.Recv.List[0].Type)
	if ast.IsExported(strings.TrimLeft(receiver, "*")) {
		s.add("method (%s) %s%s", receiver, d.Name, signature)
	}
}

func (s *lister) declaration(d *ast.GenDecl) {
	var typ string // of the constants before, in a list of iotas
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			if spec.Type != nil {
				typ = " " + s.text(spec.Type)
			} else if len(spec.Values) > 0 {
				typ = ""
			}
			for _, n := range spec.Names {
				if n.IsExported() {
					s.add("%s %s%s", d.Tok, n, typ)
				}
			}
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				s.typ(spec)
			}
		}
	}
}

func (s *lister) typ(spec *ast.TypeSpec) {
	name := spec.Name.Name
	if spec.TypeParams != nil {
		var params []string
		for _, f := range spec.TypeParams.List {
			for _, n := range f.Names {
				params = append(params, n.Name+" "+s.text(f.Type))
			}
		}
		name += "[" + strings.Join(params, ", ") + "]"
	}
	switch t := spec.Type.(type) {
	case *ast.StructType:
		s.add("type %s struct", name)
		s.members(name, "struct", t.Fields)
	case *ast.InterfaceType:
		s.add("type %s interface", name)
		s.members(name, "interface", t.Methods)
	default:
		equals := ""
		if spec.Assign.IsValid() {
			equals = "= "
		}
		s.add("type %s %s%s", name, equals, s.text(spec.Type))
	}
}

func (s *lister) members(name, kind string, fields *ast.FieldList) {
	for _, f := range fields.List {
		text := s.text(f.Type)
		if len(f.Names) == 0 && ast.IsExported(strings.TrimLeft(text[strings.LastIndexByte(text, '.')+1:], "*")) {
			s.add("type %s %s, %s", name, kind, text)
		}
		for _, n := range f.Names {
			switch {
			case !n.IsExported():
			case kind == "interface":
				s.add("type %s %s, %s%s", name, kind, n, strings.TrimPrefix(text, "func"))
			default:
				s.add("type %s %s, %s %s", name, kind, n, text)
			}
		}
	}
}
