package eventlog

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameNames says whether encoding/json means the same by the names of an object as the codec
// does: it lets a name of another case match, merges what occurs twice, and takes null for
// a missing value.
func sameNames(data []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(data))
	type level struct {
		seen   map[string]bool
		object bool
		name   bool // a name is next
	}
	var stack []level
	for {
		token, err := dec.Token()
		if err != nil {
			return true
		}
		top := len(stack) - 1
		if top >= 0 && stack[top].object && stack[top].name && token != json.Delim('}') {
			name := token.(string)
			if fold := strings.ToLower(name); stack[top].seen[fold] || name != fold && !camel[name] || strings.ContainsAny(name, "\u017f\u212a") {
				return false
			}
			stack[top].seen[strings.ToLower(name)] = true
			stack[top].name = false
			continue
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			object := token == json.Delim('{')
			stack = append(stack, level{seen: map[string]bool{}, object: object, name: object})
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		case nil:
			return false
		}
		if top = len(stack) - 1; top >= 0 && stack[top].object {
			stack[top].name = true
		}
	}
}

// camel are the members with capital letters.
var camel = map[string]bool{"planData": true, "topicId": true, "noKey": true, "hasKeys": true, "retryAfter": true}

// FuzzDecodeEvent: the decoder takes nothing that encoding/json refuses, reads the same, and
// what it read is written so that both read it again.
func FuzzDecodeEvent(f *testing.F) {
	for _, e := range sampleEvents() {
		f.Add(AppendEvent(nil, &e))
	}
	for seed := range uint64(20) {
		f.Add(AppendEvent(nil, randomEvent(rand.New(rand.NewPCG(seed, 4)), seed < 2)))
	}
	f.Add([]byte(` { "v" : 1 , "n" : 2, "type": "Checkpoint", "at": -0, "Pos": null, "id": "\ud83d\ude00\ud800x" } `))
	f.Fuzz(func(t *testing.T, data []byte) {
		kept := bytes.Clone(data)
		var e Event
		err := DecodeEvent(data, &e)
		if !bytes.Equal(kept, data) {
			t.Fatal("the data was changed")
		}
		var std Event
		stdErr := json.Unmarshal(data, &std)
		if err != nil {
			return
		}
		if stdErr != nil && sameNames(data) {
			t.Fatalf("encoding/json says %v", stdErr)
		}
		if stdErr == nil && sameNames(data) {
			std.Extra = e.Extra
			if diff := cmp.Diff(std, e, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("-encoding/json +DecodeEvent:\n%s", diff)
			}
		}
		line := AppendEvent(nil, &e)
		if !json.Valid(line) {
			t.Fatalf("written: %s", line)
		}
		var again Event
		if err := DecodeEvent(line, &again); err != nil {
			t.Fatalf("read again: %v in %s", err, line)
		}
		if second := AppendEvent(nil, &again); !bytes.Equal(line, second) {
			t.Fatalf("written\n%s\nthen\n%s", line, second)
		}
	})
}

// FuzzDecodeRequest: whatever a client appends is an error or a request that can be written.
func FuzzDecodeRequest(f *testing.F) {
	for _, r := range sampleRequests() {
		line, err := AppendRequest(nil, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(` {"v":1,"type":"Start","id":"a","definition":"D","params":{ "a" : [ 1, 2 ] },"reason":null,"jitter":1e-7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r Request
		if err := DecodeRequest(data, &r); err != nil {
			return
		}
		var std Request
		if err := json.Unmarshal(data, &std); err != nil && sameNames(data) {
			t.Fatalf("encoding/json says %v", err)
		}
		line, err := AppendRequest(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		// A request becomes part of an event: there it must be compact, valid JSON.
		var compacted bytes.Buffer
		if err := json.Compact(&compacted, line); err != nil || !bytes.Equal(compacted.Bytes(), line) {
			t.Fatalf("not compact JSON (%v): %s", err, line)
		}
		var again Request
		if err := DecodeRequest(line, &again); err != nil {
			t.Fatalf("read again: %v in %s", err, line)
		}
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-read +read again:\n%s", diff)
		}
	})
}

// FuzzAppendEvent: any string, number and JSON value is written as encoding/json writes it.
func FuzzAppendEvent(f *testing.F) {
	f.Add("order-1", "Order/\"place\"\n", []byte(`{"a":1}`), uint64(7), int64(-3))
	f.Add("\xff\u2028<>&", "\x00\x7f", []byte(` [1, 2 ] `), uint64(1<<63), int64(1)<<62)
	f.Fuzz(func(t *testing.T, id, text string, raw []byte, n uint64, at int64) {
		e := Event{V: 1, N: n, Type: TaskCompleted, At: at, ID: id, Path: text, Seq: n, Due: at, Error: text,
			Keys: []TaskKey{{Path: text, Value: id}}, Message: &Message{Topic: id, Key: raw, Offset: at}}
		if json.Valid(raw) {
			e.Params = raw
		}
		line, want := AppendEvent(nil, &e), standard(t, e)
		if !bytes.Equal(line, want) {
			t.Fatalf("encoding/json writes\n%s\nnot\n%s", want, line)
		}
		if n == 0 {
			return
		}
		var back, std Event
		if err := DecodeEvent(line, &back); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &std); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(std, back) {
			t.Fatalf("-encoding/json +DecodeEvent:\n%s", cmp.Diff(std, back))
		}
	})
}
