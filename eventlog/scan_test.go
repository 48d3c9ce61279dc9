package eventlog

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestSkipTakesWhatIsJSON: the scanner and encoding/json agree on what is JSON, on good
// values and on ones that were damaged.
func TestSkipTakesWhatIsJSON(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 0))
	values := []string{`{"a":[1,-2.5e+10,0,true,false,null,"x\u00e9\n\"\\"],"b":{},"c":[]}`, `[]`, `"\ud83d\ude00 ü"`, ` { "a" : [ 1 , { } ] } `, `-0.0E-1`, `01`, `1.`, `.5`, `-`, `+1`, `1e`, `tru`, `nul`, `{"a"}`, `{,}`, `{1:2}`, `[1 2]`, `"\x"`, `"\u12"`, "\"\x00\"", "\"\xff\"", ``}
	for _, e := range sampleEvents() {
		values = append(values, string(AppendEvent(nil, &e)))
	}
	for i := range 60_000 {
		v := []byte(values[i%len(values)])
		if i >= len(values) {
			const bytes = `{}[]",:\/0123456789.eE+-tfnu ` + "\n\x00\x1f\x7f\xc3\xff"
			for range 1 + rnd.IntN(3) {
				at := rnd.IntN(len(v) + 1)
				switch rnd.IntN(3) {
				case 0:
					v = append(v[:at], append([]byte{bytes[rnd.IntN(len(bytes))]}, v[at:]...)...)
				case 1:
					if at < len(v) {
						v[at] = bytes[rnd.IntN(len(bytes))]
					}
				default:
					if at < len(v) {
						v = append(v[:at], v[at+1:]...)
					}
				}
			}
		}
		s := scanner{data: v}
		s.skip(0)
		s.end()
		if (s.err == nil) != json.Valid(v) {
			t.Fatalf("seed %d, value %d: %q is JSON: %v; the scanner says %v", seed, i, v, json.Valid(v), s.err)
		}
	}
}

// TestDeepNesting: what an event may hold, encoding/json reads with the event around it.
func TestDeepNesting(t *testing.T) {
	for _, c := range []struct {
		depth int
		ok    bool
	}{{maxNesting, true}, {maxNesting + 2, false}, {5_000_000, false}} {
		v := strings.Repeat("[", c.depth) + strings.Repeat("]", c.depth)
		s := scanner{data: []byte(v)}
		if s.skip(0); (s.err == nil) != c.ok || c.ok && !json.Valid([]byte(`{"out":[{"request":{"message":{"value":`+v+`}}}]}`)) {
			t.Errorf("depth %d: %v", c.depth, s.err)
		}
	}
}
