package eventlog

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDecodeRequestErrorsNameTheField(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{``, `an object is wanted`},
		{`{"v":1,"type":"Start","id":"a"} 1`, `something after the end`},
		{`{"type":"Start","id":"a"}`, `field v is missing`},
		{`{"v":1,"id":"a"}`, `field type is missing`},
		{`{"v":1,"type":"Stop"}`, `field id: the id is empty`},
		{`{"v":1,"type":"Stop","id":null}`, `field id: the id is empty`},
		{`{"v":1,"type":"Stop","id":7}`, `field id: a number where a string is wanted`},
		{`{"v":1,"type":"Stop","id":"a\u0000"}`, `field id: the id has the control character U+0000 at byte 1`},
		{`{"v":1,"type":"Stop","id":"` + strings.Repeat("x", MaxID+1) + `"}`, `field id: the id has 513 bytes; at most 512 fit`},
		{`{"v":1,"type":"Stop","id":"a","request":"\n"}`, `field request: the id has the control character`},
		{"{\"v\":1,\"type\":\"Stop\",\"id\":\"a\xff\"}", `not valid UTF-8`},
		{`{"v":1,"type":"Stop","id":"a","made":-1}`, `field made`},
		{`{"v":1,"type":"Stop","id":"a","made":"now"}`, `field made: a string where a number is wanted`},
		{`{"v":1,"type":"Start","id":"a","params":{]}`, `field params`},
		{`{"v":1,"type":"Start","id":"a","definition":"` + strings.Repeat("x", MaxName+1) + `"}`, `field definition`},
		{`{"v":1,"type":"Result","id":"a","jitter":1}`, `field jitter is not in [0,1)`},
		{`{"v":1,"type":"Result","id":"a","record":{"key":"?"}}`, `field record.key: a string that is not base64`},
		{`{"v":1,"type":"Deliver","topic":"t","key":"k"}`, `field value is missing`},
		{`{"v":1,"type":"Subscribe","id":"a","topic":"t","value":"v"}`, `field key is missing`},
		{`{"v":1,"type":"Ack","from":1}`, `field upto is missing`},
		{`{"v":1,"type":"Ack","from":1,"upto":{"pos":1},"source":{"partition":1}}`, `field mark or source is missing`},
	} {
		err := DecodeRequest([]byte(c.data), new(Request))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s\ngives %v\nwant …%s…", c.data, err, c.want)
		}
	}
}

func TestDecodeRequestIsTolerant(t *testing.T) {
	var r Request
	err := DecodeRequest([]byte(` {"later":{"a":[1]},"v":1,"type":"Start","id":"ä {x}","definition":"D","request":null,
		"params": { "a b" : [ 1, 2 ] },"keys":null,"record":null} `), &r)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "ä {x}" || string(r.Params) != `{"a b":[1,2]}` || r.Request != "" || r.Record != nil {
		t.Errorf("decoded %+v", r)
	}
	// What the machine refuses in-band must reach it.
	for _, data := range []string{`{"v":1,"type":"Start","id":"a"}`, `{"v":1,"type":"Start","id":"a","definition":"D","params":[1]}`} {
		if err := DecodeRequest([]byte(data), &r); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
}

func TestDecodeRequestCutsLongTexts(t *testing.T) {
	long := strings.Repeat("ü", MaxStack)
	line, err := AppendRequest(nil, &Request{V: 1, Type: Result, ID: "a", Error: "x" + long, Stack: long, Reason: "short"})
	if err != nil {
		t.Fatal(err)
	}
	var r Request
	if err := DecodeRequest(line, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Error) != MaxError-1 || len(r.Stack) != MaxStack || !utf8.ValidString(r.Error) || r.Reason != "short" {
		t.Errorf("error of %d bytes, stack of %d, reason %q", len(r.Error), len(r.Stack), r.Reason)
	}
}

func TestAppendRequestErrors(t *testing.T) {
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{Params: json.RawMessage(`{"a"}`)}, "field params"},
		{Request{Jitter: math.NaN()}, "field jitter"},
		{Request{Record: &Record{Time: time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)}}, "field time"},
		{Request{Message: &Message{Value: json.RawMessage(`x`)}}, "field value"},
	} {
		got, err := AppendRequest([]byte("before"), &c.r)
		if err == nil || !strings.Contains(err.Error(), c.want) || string(got) != "before" {
			t.Errorf("%+v: %q, %v", c.r, got, err)
		}
	}
}

func TestValidateID(t *testing.T) {
	for _, good := range []string{"a", "order-42", "{order-7}/audit", "ä ö", " ", strings.Repeat("x", MaxID), "\ufffd", "😀"} {
		if err := ValidateID(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", strings.Repeat("x", MaxID+1), "a\xff", "a\n", "\x00", "a\u0085", "\x7f"} {
		if ValidateID(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

func TestValidateIsWhatDecodeRequestChecks(t *testing.T) {
	for _, r := range sampleRequests() {
		if err := r.Validate(); err != nil {
			t.Errorf("%s: %v", r.Type, err)
		}
	}
	r := Request{V: 1, Type: StartInstance, ID: "a", Params: json.RawMessage(` { "a" : 1 } `)}
	if err := r.Validate(); err != nil || string(r.Params) != `{"a":1}` {
		t.Errorf("params %s, error %v", r.Params, err)
	}
	for want, r := range map[string]Request{
		"field id":            {V: 1, Type: StopInstance},
		"field params":        {V: 1, Type: Result, ID: "a", Params: json.RawMessage(`{"a"`)},
		"field params is not": {V: 1, Type: Result, ID: "a", Params: json.RawMessage("{\"a\":\"\xff\"}")},
		"field state":         {V: 1, Type: ReleaseInstance, ID: "a", State: json.RawMessage(`{} {}`)},
		"field message.value": {V: 1, Type: DeliverTo, ID: "a", Message: &Message{Value: json.RawMessage(strings.Repeat("[", 20000))}},
		"needs a newer":       {V: 2, Type: StopInstance, ID: "a"},
	} {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %s: %v, want …%s…", r.Type, r.Params, err, want)
		}
	}
}
