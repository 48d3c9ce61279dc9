package workflow

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// checkParams says what of a type JSON would lose, or could not read back, without a word:
// better known when the definition is registered than missing after a restart.
func checkParams(t reflect.Type) []string {
	c := paramsCheck{seen: map[reflect.Type]bool{}}
	if t.Kind() != reflect.Struct {
		return []string{fmt.Sprintf("%v is not a struct", t)}
	}
	name := t.Name()
	if name == "" {
		name = "struct"
	}
	c.walk(t, name)
	if implements(t, jsonMarshaler) || implements(t, textMarshaler) {
		c.object(t, name)
	}
	return c.found
}

// object complains if parameters that encode themselves are no JSON object.
func (c *paramsCheck) object(t reflect.Type, path string) {
	defer func() { _ = recover() }() // the method can do nothing with the zero value; Start tells then
	if data, err := json.Marshal(reflect.New(t).Interface()); err == nil && !strings.HasPrefix(string(data), "{") {
		c.problem(path, "%v encodes itself as %s; parameters must be a JSON object", t, data)
	}
}

type paramsCheck struct {
	seen  map[reflect.Type]bool
	found []string
}

func (c *paramsCheck) problem(path, format string, args ...any) {
	c.found = append(c.found, path+": "+fmt.Sprintf(format, args...))
}

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func implements(t, i reflect.Type) bool {
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

// custom says whether the type encodes itself, and complains if it can't be read back.
func (c *paramsCheck) custom(t reflect.Type, path string) bool {
	if t.Kind() == reflect.Interface {
		return false
	}
	out := implements(t, jsonMarshaler) || implements(t, textMarshaler)
	in := implements(t, jsonUnmarshaler) || implements(t, textUnmarshaler)
	switch {
	case out && !in:
		c.problem(path, "%v encodes itself but has no UnmarshalJSON or UnmarshalText", t)
	case in && !out:
		c.problem(path, "%v decodes itself but has no MarshalJSON or MarshalText", t)
	case out && in && t.Kind() == reflect.Struct && t.NumField() > 1:
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous && (implements(f.Type, jsonMarshaler) || implements(f.Type, textMarshaler)) {
				c.problem(path, "%v is encoded as its embedded %v alone, the other fields are lost: give that field a name", t, f.Type)
			}
		}
	}
	return out || in
}

func (c *paramsCheck) walk(t reflect.Type, path string) {
	if c.seen[t] {
		return
	}
	c.seen[t] = true
	if c.custom(t, path) {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		c.walk(t.Elem(), path)
	case reflect.Slice, reflect.Array:
		c.walk(t.Elem(), path+"[]")
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			c.problem(path, "a map with keys of type %v; JSON's are strings", t.Key())
		}
		c.walk(t.Elem(), path+"[]")
	case reflect.Interface:
		if t.NumMethod() > 0 {
			c.problem(path, "interface %v can't be decoded", t)
		}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		c.problem(path, "JSON has nothing for a %v", t.Kind())
	case reflect.Struct:
		names := map[string]string{}
		c.fields(t, path, names, map[reflect.Type]bool{t: true})
	}
}

// fields walks a struct's fields, those of embedded structs as its own. names has the JSON
// names given so far.
func (c *paramsCheck) fields(t reflect.Type, path string, names map[string]string, within map[reflect.Type]bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		at := path + "." + f.Name
		tag := f.Tag.Get("json")
		if tag == "-" || f.Name == "_" {
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		inlined := f.Anonymous && name == "" && inner.Kind() == reflect.Struct && !implements(inner, jsonMarshaler) && !implements(inner, textMarshaler)
		if !f.IsExported() && !inlined {
			c.problem(at, `the field is not exported, so JSON would lose it: export it, or tag it json:"-" if that is wanted`)
			continue
		}
		if inlined {
			if !f.IsExported() && f.Type.Kind() == reflect.Pointer {
				c.problem(at, "a pointer to an unexported struct is embedded: JSON can't fill it")
				continue
			}
			if !within[inner] {
				within[inner] = true
				c.fields(inner, at, names, within)
				delete(within, inner)
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if first, twice := names[name]; twice {
			c.problem(at, "its JSON name %q is also that of %s: one of them would be lost", name, first)
		} else {
			names[name] = at
		}
		c.walk(f.Type, at)
	}
}
