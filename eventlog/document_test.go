package eventlog

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const document = "../docs/event-log.md"

var heading = regexp.MustCompile(`(?m)^(#{2,4}) (.+)\n`)

// sections are the parts of the document by their headings.
func sections(text string) map[string]string {
	parts := map[string]string{}
	marks := heading.FindAllStringSubmatchIndex(text, -1)
	for k, m := range marks {
		end := len(text)
		if k+1 < len(marks) {
			end = marks[k+1][0]
		}
		parts[text[m[4]:m[5]]] = text[m[1]:end]
	}
	return parts
}

// members are the names that stand in backquotes in the first column of a section's tables.
func members(section string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "|") && len(cells) > 2 {
			for k, name := range strings.Split(cells[1], "`") {
				if k%2 == 1 {
					names[name] = true
				}
			}
		}
	}
	return names
}

// TestDocument keeps docs/event-log.md true: each type has a section with its golden line
// and a row for every member of that line; every member of the structs is said somewhere.
func TestDocument(t *testing.T) {
	lines := map[string]string{}
	for _, e := range sampleEvents() {
		lines[string(e.Type)] = string(AppendEvent(nil, &e))
	}
	for _, r := range sampleRequests() {
		line, err := AppendRequest(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		lines[string(r.Type)] = string(line)
	}
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	if *rewrite {
		for typ, line := range lines {
			example := regexp.MustCompile("(?s)(\n#{3,4} " + typ + "\n.*?\n```json\n).*?```")
			text = example.ReplaceAllStringFunc(text, func(old string) string {
				head, _, _ := strings.Cut(old, "```json\n")
				return head + "```json\n" + line + "\n```"
			})
		}
		if err := os.WriteFile(document, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(text, "`"+string(Barrier)+"`") {
		t.Errorf("the document does not have the barrier %s", Barrier)
	}
	parts := sections(text)
	everywhere := members(text)
	common := members(parts["Members of every event"])
	for name := range members(parts["Requests"]) {
		common[name] = true
	}
	crossing := members(parts["Requests between the engine's own parts"])
	calls := members(parts["Calls"])
	for typ, line := range lines {
		section, ok := parts[typ]
		if !ok {
			t.Errorf("%s has no section", typ)
			continue
		}
		if !strings.Contains(section, "\n```json\n"+line+"\n```\n") {
			t.Errorf("the section of %s does not have its golden line:\n%s", typ, line)
		}
		if n := strings.Count(section, "```json"); n != 1 {
			t.Errorf("the section of %s has %d examples", typ, n)
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatal(err)
		}
		known := members(section)
		for name := range object {
			inherited := common[name] || knownRequests[RequestType(typ)].v > 0 && (crossing[name] || calls[name])
			if !inherited && !known[name] {
				t.Errorf("the section of %s does not say what %q means", typ, name)
			}
		}
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[Request](), reflect.TypeFor[Position]()} {
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "-" && !everywhere[name] {
				t.Errorf("no table has the member %q of %s", name, typ.Name())
			}
		}
	}
}
