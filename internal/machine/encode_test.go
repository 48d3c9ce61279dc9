package machine

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// TestAppendJSON: the bytes are those of encoding/json, whatever is in the fields, which are
// all filled by reflection: one that the encoder does not know shows.
func TestAppendJSON(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 3000 {
		i := &Instance{}
		share := []float64{0, 0.2, 0.9, 1}[round%4] // of the fields
		fill(rnd, reflect.ValueOf(i).Elem(), share)
		want, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		if got := i.AppendJSON([]byte("before")); !bytes.Equal(got[6:], want) {
			t.Fatalf("got  %s\nwant %s", got[6:], want)
		}
	}
}

var (
	someTexts = []string{"", "a", "order-42", "Work/message[3]", "<b>&", "\u2028", "a\u00e9\"\\\n\x00\x7f", "\xff\xfe", "世界"}
	someJSON  = []string{"", "null", "{}", `{"a":1,"b":"x y"}`, ` { "a" : [ 1 , "<>\" " ] } `, `"\\"`, `"\\\" \u2028<"`, "\"\u2028\u2029&é世\"", "[1,\n2,{\t}]"}
)

// fill gives random values to a share of the fields.
func fill(rnd *rand.Rand, v reflect.Value, share float64) {
	if v.Type() == reflect.TypeFor[json.RawMessage]() {
		v.SetBytes(append(json.RawMessage(nil), someJSON[rnd.IntN(len(someJSON))]...))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for k := range v.NumField() {
			if v.Type().Field(k).IsExported() && (v.Type().Field(k).Anonymous || rnd.Float64() < share) {
				fill(rnd, v.Field(k), share)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rnd, v.Elem(), share)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rnd.IntN(4), 4))
		for k := range v.Len() {
			fill(rnd, v.Index(k), share)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.String:
		v.SetString(someTexts[rnd.IntN(len(someTexts))])
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(int32(rnd.Uint32())) >> rnd.IntN(32))
	case reflect.Float64:
		v.SetFloat(rnd.NormFloat64())
	case reflect.Uint8:
		v.SetUint(uint64(rnd.IntN(256)))
	case reflect.Uint64:
		v.SetUint(rnd.Uint64() >> 1 >> rnd.IntN(63))
	default:
		panic("a field of kind " + v.Kind().String())
	}
}
