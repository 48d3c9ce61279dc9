package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// standard is what encoding/json writes without escaping for HTML.
func standard(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// fill gives every exported field of v a random value; with all, none stays zero.
func fill(rnd *rand.Rand, v reflect.Value, all bool) {
	if !all && rnd.IntN(3) == 0 {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *json.RawMessage:
		*p = json.RawMessage(pick(rnd, `{}`, `{"a":1.5e-3,"b":[true,null,"x y"]}`, `{"ü":"\u00fc\n <&>\u2028"}`, "{\"sep\":\"\u2028\"}"))
		return
	case *time.Time:
		*p = time.UnixMilli(1 + rnd.Int64N(1<<41)).UTC()
		return
	case *[]byte:
		*p = []byte(pick(rnd, "a", "\x00\xff", "key-1"))
		return
	case *[]Field:
		if all {
			*p = []Field{{"later", json.RawMessage(`[1]`)}, {"\"n<\nü", json.RawMessage(`null`)}}
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rnd, v.Field(i), all)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem(), all)
	case reflect.Slice:
		n := 1 + rnd.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rnd, v.Index(i), all)
		}
	case reflect.String:
		v.SetString(pick(rnd, "Order/ready", "order-42", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "<b>&amp;</b>", "grüße 世界 😀", "\u2028\u2029", "execute", "é\xffbad\xc3"))
	case reflect.Bool:
		v.SetBool(all || rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{1, 7, 1764034213000, -5, 1<<63 - 1, -1 << 63}[rnd.IntN(6)])
	case reflect.Int32:
		v.SetInt([]int64{1, 15, -1, 1<<31 - 1, -1 << 31}[rnd.IntN(5)])
	case reflect.Uint64:
		v.SetUint([]uint64{1, 90317, 1<<64 - 1}[rnd.IntN(3)])
	case reflect.Float64:
		v.SetFloat([]float64{0.5, rnd.Float64(), 1e-9, 3e-7, 0.999}[rnd.IntN(5)])
	default:
		panic("fill: " + v.Type().String())
	}
}

func pick(rnd *rand.Rand, from ...string) string { return from[rnd.IntN(len(from))] }

// randomEvent has a known type and version, the rest is random.
func randomEvent(rnd *rand.Rand, all bool) *Event {
	e := new(Event)
	fill(rnd, reflect.ValueOf(e).Elem(), all)
	e.V, e.Type, e.N = 1, eventTypes[rnd.IntN(len(eventTypes))].typ, 1+rnd.Uint64N(1000)
	return e
}

func TestAppendEventWritesWhatEncodingJSONWrites(t *testing.T) {
	for seed := range uint64(1000) {
		e := randomEvent(rand.New(rand.NewPCG(seed, 1)), seed < 100)
		extra := e.Extra
		e.Extra = nil
		if diff := cmp.Diff(string(standard(t, e)), string(AppendEvent(nil, e))); diff != "" {
			t.Fatalf("seed %d (-encoding/json +AppendEvent):\n%s", seed, diff)
		}
		e.Extra = extra
		if got := AppendEvent([]byte("before"), e); !bytes.HasPrefix(got, []byte(`before{"v":1,`)) || !json.Valid(got[6:]) {
			t.Fatalf("seed %d: %s", seed, got)
		}
	}
}

func TestDecodeEventReadsWhatEncodingJSONReads(t *testing.T) {
	for seed := range uint64(1000) {
		e := randomEvent(rand.New(rand.NewPCG(seed, 2)), seed < 100)
		line := AppendEvent(nil, e)
		var want, got Event
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		want.Extra = e.Extra
		if err := DecodeEvent(line, &got); err != nil {
			t.Fatalf("seed %d: %v in %s", seed, err, line)
		}
		for i, f := range want.Extra { // names come out as JSON could say them
			want.Extra[i].Name = strings.ToValidUTF8(f.Name, "\ufffd")
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-encoding/json +DecodeEvent):\n%s", seed, diff)
		}
		line = bytes.ReplaceAll(line, []byte(`\ufffd`), []byte("\ufffd")) // escaped only where it replaced something
		if diff := cmp.Diff(string(line), string(AppendEvent(nil, &got))); diff != "" {
			t.Fatalf("seed %d, written again:\n%s", seed, diff)
		}
		indented := new(bytes.Buffer)
		if err := json.Indent(indented, line, " ", "\t"); err != nil {
			t.Fatal(err)
		}
		if err := DecodeEvent(indented.Bytes(), &got); err != nil {
			t.Fatalf("seed %d, indented: %v", seed, err)
		}
		if diff := cmp.Diff(string(line), string(AppendEvent(nil, &got))); diff != "" {
			t.Fatalf("seed %d, indented, written again:\n%s", seed, diff)
		}
	}
}

func TestRequestsAreThoseOfEncodingJSON(t *testing.T) {
	for seed := range uint64(1000) {
		r := new(Request)
		fill(rand.New(rand.NewPCG(seed, 3)), reflect.ValueOf(r).Elem(), seed < 100)
		line, err := AppendRequest(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(standard(t, r)), string(line)); diff != "" {
			t.Fatalf("seed %d (-encoding/json +AppendRequest):\n%s", seed, diff)
		}
		var want, got Request
		if err := json.Unmarshal(line, &want); err != nil {
			t.Fatal(err)
		}
		s := scanner{data: line} // DecodeRequest would refuse what is random here
		s.request(&got)
		if s.end(); s.err != nil {
			t.Fatalf("seed %d: %v", seed, s.err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("seed %d (-encoding/json +request):\n%s", seed, diff)
		}
	}
}

func TestUnknownMembersAreKeptInOrder(t *testing.T) {
	const line = `{"v":1,"n":3,"type":"Checkpoint","at":5,"zeta":{"a":[1,2]},"ID":"not id","alpha":null,"zeta":2}`
	var e Event
	if err := DecodeEvent([]byte(`{"zeta":{"a":[1,2]},"v":1,"ID":"not id","n":3,"type":"Checkpoint","alpha":null,"at":5,"zeta":2}`), &e); err != nil {
		t.Fatal(err)
	}
	if e.ID != "" || len(e.Extra) != 4 {
		t.Errorf("decoded %+v", e)
	}
	if got := string(AppendEvent(nil, &e)); got != line {
		t.Errorf("written again: %s\nwant %s", got, line)
	}
}

func TestDecodeEventErrorsNameTheField(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{``, `the end of the data where an object is wanted`},
		{`[]`, `an array where an object is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","at":1} x`, `something after the end`},
		{`{"v":1,"n":1,"type":"Checkpoint","at":1}{}`, `something after the end`},
		{`{"v":1,"n":1,"type":"Checkpoint","at":1` + "\x00", `byte 39`},
		{`{"v":1,"n":1,"type":"Checkpoint","at":1}` + "\x00", `something after the end`},
		{`{"n":1,"type":"Checkpoint"}`, `field v is missing`},
		{`{"v":1,"type":"Checkpoint"}`, `field n is missing`},
		{`{"v":1,"n":1}`, `field type is missing`},
		{`{"v":"1","n":1,"type":"Checkpoint"}`, `field v: a string where a number is wanted`},
		{`{"v":1,"n":-1,"type":"Checkpoint"}`, `field n: a negative number`},
		{`{"v":1,"n":1.0,"type":"Checkpoint"}`, `field n: a number that is not written as a whole one`},
		{`{"v":1,"n":01,"type":"Checkpoint"}`, `field n: a number with a leading zero`},
		{`{"v":1,"n":18446744073709551616,"type":"Checkpoint"}`, `field n: a number that is too large`},
		{`{"v":1,"n":1,"type":"Checkpoint","at":9223372036854775808}`, `field at: a number that is too large`},
		{`{"v":1,"n":1,"type":"Checkpoint","from":2147483648}`, `field from: a number that is too large`},
		{`{"v":1,"n":1,"type":7}`, `field type: a number where a string is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","id":null}`, `field id: null where a string is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","evaluate":1}`, `field evaluate: a number where a boolean is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","starts":{}}`, `field starts: an object where an array is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","starts":[{"path":"a"},{"due":"x"}]}`, `field starts.due: a string where a number is wanted`},
		{`{"v":1,"n":1,"type":"Checkpoint","out":[{"to":1,"request":{"message":{"headers":[{"value":"*"}]}}}]}`, `field out.request.message.headers.value: a string that is not base64`},
		{`{"v":1,"n":1,"type":"Checkpoint","held":{"record":{"time":"yesterday"}}}`, `field held.record.time: a string that is no time`},
		{`{"v":1,"n":1,"type":"Checkpoint","back":[1,]}`, `field back: something that is not JSON`},
		{`{"v":1,"n":1,"type":"Checkpoint","back":[1 2]}`, `field back: a number where a comma`},
		{`{"v":1,"n":1,"type":"Checkpoint","params":{"a":}}`, `field params: something that is not JSON`},
		{`{"v":1,"n":1,"type":"Checkpoint","params":` + strings.Repeat("[", 20000) + `}`, `field params: nested too deeply`},
		{`{"v":1,"n":1,"type":"Checkpoint","later":tru}`, `field later: something that is not JSON`},
		{`{"v":1,"n":1,"type":"Checkpoint","id":"a` + "\n" + `"}`, `field id: a control character in a string`},
		{`{"v":1,"n":1,"type":"Checkpoint","id":"\x"}`, `field id: a bad escape`},
		{`{"v":1,"n":1,"type":"Checkpoint","id":"\u12g4"}`, `field id: a bad \u escape`},
		{`{"v":1,"n":1,"type":"Checkpoint","id":"a`, `field id: a string without an end`},
		{`{"v":1,"n":1,"type":"Checkpoint",}`, `where a string is wanted`},
	} {
		var e Event
		err := DecodeEvent([]byte(c.data), &e)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s\ngives %v\nwant …%s…", c.data, err, c.want)
		}
		if errors.Is(err, ErrUnknownVersion) {
			t.Errorf("%.80s: %v is no matter of versions", c.data, err)
		}
	}
}

func TestNewerVersionsSaySo(t *testing.T) {
	for _, data := range []string{
		`{"v":2,"n":1,"type":"Checkpoint","at":1}`,
		`{"v":1,"n":1,"type":"SomethingNew","at":1}`,
		`{"v":2,"n":1,"type":"TaskCompleted","at":1,"id":{"not":"a string"}}`,
		`{"id":[],"n":"x","type":"TaskCompleted","v":2}`,
		`{"v":1,"type":"SomethingNew"}`,
	} {
		var e Event
		err := DecodeEvent([]byte(data), &e)
		if !errors.Is(err, ErrUnknownVersion) || !strings.Contains(err.Error(), "needs a newer version") {
			t.Errorf("%s: %v", data, err)
		}
		if e.V == 0 || e.Type == "" {
			t.Errorf("%s: version %d and type %q are not said", data, e.V, e.Type)
		}
	}
	for _, data := range []string{`{"v":2,"type":"Start","id":"a"}`, `{"v":1,"type":"Pause","id":[]}`} {
		if err := DecodeRequest([]byte(data), new(Request)); !errors.Is(err, ErrUnknownVersion) {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestAppendEventRefusesWhatIsNotJSON(t *testing.T) {
	for _, e := range []*Event{
		{V: 1, N: 1, Type: Checkpoint, Params: json.RawMessage(`{"a":`)},
		{V: 1, N: 1, Type: Checkpoint, State: json.RawMessage(`{} {}`)},
		{V: 1, N: 1, Type: Checkpoint, Extra: []Field{{Name: "x"}}},
		{V: 1, N: 1, Type: Checkpoint, Held: &Request{Params: json.RawMessage(`nope`)}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v was encoded", e)
				}
			}()
			AppendEvent(nil, e)
		}()
	}
	got := string(AppendEvent(nil, &Event{V: 1, N: 1, Type: Checkpoint, Params: json.RawMessage(" {\"a b\" :\n1 } ")}))
	if want := `{"v":1,"n":1,"type":"Checkpoint","at":0,"params":{"a b":1}}`; got != want {
		t.Errorf("white space in a value: %s, want %s", got, want)
	}
}

func TestDecodedStringsDoNotAlias(t *testing.T) {
	line := AppendEvent(nil, &Event{V: 1, N: 1, Type: TaskCompleted, ID: "order-1", Path: "Order/place", Params: json.RawMessage(`{"a":1}`)})
	var e Event
	if err := DecodeEvent(line, &e); err != nil {
		t.Fatal(err)
	}
	if grown := append(e.Params, "x"...); &grown[0] == &e.Params[0] {
		t.Error("appending to a raw value writes into the event's data")
	}
	clear(line)
	if e.ID != "order-1" || e.Path != "Order/place" || e.Type != TaskCompleted {
		t.Errorf("strings changed with the data: %+v", e)
	}
}

func TestChecksumAndHeaders(t *testing.T) {
	if a, b := Checksum([]byte(`{"n":1}`)), Checksum([]byte(`{"n":2}`)); a == b || a == 0 {
		t.Errorf("checksums %x and %x", a, b)
	}
	// It is stored: another algorithm would make every store look like that of another log.
	if got := Checksum([]byte("123456789")); got != 0x995dc9bbdf1939fa {
		t.Errorf("checksum of the check string is %x: it changed", got)
	}
	want := []Header{{"content-type", []byte("application/json")}, {"type", []byte("TaskCompleted")}}
	if diff := cmp.Diff(want, EventHeaders(TaskCompleted)); diff != "" {
		t.Error(diff)
	}
	if got := EventHeaders("Other"); string(got[1].Value) != "Other" {
		t.Errorf("headers of an unknown type: %v", got)
	}
	if MaxVersion(TaskCompleted) != 1 || MaxVersion("Other") != 0 {
		t.Error("MaxVersion")
	}
}
