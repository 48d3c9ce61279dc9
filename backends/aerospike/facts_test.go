package aerospike

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	as "github.com/aerospike/aerospike-client-go/v7"
	"github.com/aerospike/aerospike-client-go/v7/types"
)

// TestRealServerFacts checks what the store relies on, on the server of AEROSPIKE_ADDR. That
// the fake does the same is TestRealServerIsLikeFake.
func TestRealServerFacts(t *testing.T) {
	needServer(t)
	for _, fact := range []struct {
		name string
		f    func(*testing.T, *realServer, *cluster)
	}{
		{"a condition is not looked at where there is no record", factConditions},
		{"records never expire", factNoExpiry},
		{"entries are in bytewise order of their keys", factOrder},
		{"a record of max-record-size is refused whole", factSize},
		{"no reply leaves all changes of a call in doubt", factDoubt},
		{"a client that repeats calls is refused by what it did itself", factClientRepeats},
		{"the cluster has a name that stays", factClusterName},
		{"a sweep removes old incarnations and nothing else", factSweep},
	} {
		t.Run(fact.name, func(t *testing.T) {
			server := needServer(t).withSet(t)
			fact.f(t, server, server.cluster(t, server.addr))
		})
	}
}

// codes makes changes and returns their codes.
func (c *cluster) codes(t *testing.T, changes ...change) (codes []code) {
	t.Helper()
	results, err := c.change(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		codes = append(codes, r.code)
	}
	return codes
}

func factConditions(t *testing.T, _ *realServer, c *cluster) {
	at := func(key string, m mode, n, older int64) change {
		return change{key: key, mode: m, older: older, put: []bin{{binN, n}}}
	}
	for _, step := range []struct {
		what    string
		changes []change
		want    []code
	}{
		{"one that isn't there", []change{at("a", upsert, 7, 5)}, []code{codeOK}},
		{"two that aren't there", []change{at("b", upsert, 7, 5), at("c", upsert, 7, 5)}, []code{codeOK, codeOK}},
		{"update of one that isn't there", []change{at("x", update, 7, 9)}, []code{codeNotFound}},
		{"create of one that is there", []change{at("a", create, 9, 9)}, []code{codeExists}},
		{"not older", []change{at("a", upsert, 7, 7)}, []code{codeFiltered}},
		{"one older and one not", []change{at("b", update, 8, 8), at("c", update, 7, 7)}, []code{codeOK, codeFiltered}},
		{"without the bin", []change{{key: "d", put: []bin{{binValue, "x"}}}}, []code{codeOK}},
		{"condition on a bin that isn't there", []change{at("d", upsert, 9, 9)}, []code{codeFiltered}},
	} {
		if got := c.codes(t, step.changes...); !slices.Equal(got, step.want) {
			t.Errorf("%s: codes %v, want %v", step.what, got, step.want)
		}
	}
}

func factNoExpiry(t *testing.T, server *realServer, c *cluster) {
	c.codes(t, change{key: "a", put: []bin{{binN, int64(1)}}}, change{key: "b", add: []entry{{"k", []byte("v")}}})
	for _, name := range []string{"a", "b"} {
		key, err := c.key(name)
		if err != nil {
			t.Fatal(err)
		}
		r, readErr := server.client(t).Get(nil, key)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if r.Expiration != as.TTLDontExpire {
			t.Errorf("record %s expires in %d s", name, r.Expiration)
		}
	}
}

func factOrder(t *testing.T, server *realServer, c *cluster) {
	rnd := seeded(t)
	keys := slices.Clone(randomKeys)
	for range 300 {
		raw := make([]byte, 1+rnd.IntN(12))
		for i := range raw {
			raw[i] = byte(rnd.IntN(256))
		}
		keys = append(keys, string(raw))
	}
	rnd.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for part := range slices.Chunk(keys, 50) {
		add := change{key: "page"}
		for _, k := range part {
			if !slices.ContainsFunc(add.add, func(e entry) bool { return e.key == k }) {
				add.add = append(add.add, entry{k, []byte{1}})
			}
		}
		c.codes(t, add)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	key, err := c.key("page")
	if err != nil {
		t.Fatal(err)
	}
	from, to := keys[len(keys)/4], keys[len(keys)/2]
	r, readErr := server.client(t).Operate(nil, key, as.MapGetByKeyRangeOp(binEntries, from, to, as.MapReturnType.KEY_VALUE))
	if readErr != nil {
		t.Fatal(readErr)
	}
	var got []string
	for _, p := range r.Bins[binEntries].([]as.MapPair) {
		got = append(got, p.Key.(string))
	}
	if want := keys[len(keys)/4 : len(keys)/2]; !slices.Equal(got, want) {
		t.Errorf("keys from %q to %q are\n%q, want\n%q", from, to, got, want)
	}
}

func factSize(t *testing.T, server *realServer, c *cluster) {
	s := server.open(t, server.options(server.addr))
	fits := bytes.Repeat([]byte("x"), s.pieceSize)
	own := space{3, newIncarnation(0)}
	if got := c.codes(t, change{key: "a", put: own.bins(bin{binValue, fits})}); got[0] != codeOK {
		t.Errorf("%d bytes of %d: code %d", len(fits), s.recordSize, got[0])
	}
	over := bytes.Repeat([]byte("x"), s.recordSize)
	for _, m := range []mode{upsert, update} {
		got := c.codes(t, change{key: "a", mode: m, put: []bin{{binN, int64(1)}, {binValue, over}}}, change{key: "b", put: []bin{{binN, int64(1)}}})
		if !slices.Equal(got, []code{codeTooBig, codeOK}) {
			t.Errorf("%d bytes of %d, and a small one: codes %v", len(over), s.recordSize, got)
		}
	}
	page := change{key: "a"}
	for i := range s.recordSize / 1000 {
		page.add = append(page.add, entry{fmt.Sprint(i), make([]byte, 1000)})
	}
	if got := c.codes(t, page); got[0] != codeTooBig {
		t.Errorf("a page that is too big: code %d", got[0])
	}
	have, err := c.read(t.Context(), []read{{key: "a", bins: []string{binN, binValue, binEntries}}})
	if err != nil {
		t.Fatal(err)
	}
	if r := have[0]; len(r.entries) > 0 || r.int(binN) != 0 || !bytes.Equal(r.bytes(binValue), fits) {
		t.Error("what was refused has changed the record")
	}
}

func factDoubt(t *testing.T, server *realServer, c *cluster) {
	p := startProxy(t, server.addr)
	far := server.cluster(t, p.addr())
	for n := 1; n <= 3; n++ {
		p.decide(only(0, loseReply)) // a second one would come
		var changes []change
		var reads []read
		for i := range n {
			key := fmt.Sprintf("%d/%d", n, i)
			changes = append(changes, change{key: key, put: []bin{{binN, int64(n)}}})
			reads = append(reads, read{key: key, bins: []string{binN}})
		}
		results, err := far.change(t.Context(), changes)
		if err == nil {
			t.Errorf("%d changes without a reply: no error", n)
		}
		for i, r := range results {
			if !r.code.inDoubt() {
				t.Errorf("change %d of %d without a reply: code %d, want one in doubt", i, n, r.code)
			}
		}
		if have, err := c.read(t.Context(), reads); err != nil || slices.Contains(have, nil) {
			t.Errorf("%d changes whose reply was lost were not made: %v, %v", n, have, err)
		}
	}
}

func factClientRepeats(t *testing.T, server *realServer, c *cluster) {
	p := startProxy(t, server.addr)
	behind := *server
	behind.addr = p.addr()
	client := behind.client(t)
	c.codes(t, change{key: "a", put: []bin{{binToken, int64(1)}}})
	for name, code := range map[string]types.ResultCode{"a": types.FILTERED_OUT, "b": types.KEY_EXISTS_ERROR} {
		policy := as.NewWritePolicy(0, as.TTLDontExpire)
		policy.MaxRetries, policy.SleepBetweenRetries = 2, time.Millisecond
		if name == "a" {
			policy.RecordExistsAction = as.UPDATE_ONLY
			policy.FilterExpression = as.ExpEq(as.ExpIntBin(binToken), as.ExpIntVal(1))
		} else {
			policy.RecordExistsAction = as.CREATE_ONLY
		}
		key, err := c.key(name)
		if err != nil {
			t.Fatal(err)
		}
		p.decide(only(0, loseReply))
		putErr := client.PutBins(policy, key, as.NewBin(binToken, 2))
		if putErr == nil || !putErr.Matches(code) {
			t.Errorf("a put that won and was repeated: %v, want code %d", putErr, code)
		}
		have, err := c.read(t.Context(), []read{{key: name, bins: []string{binToken}}})
		if err != nil || have[0] == nil || have[0].int(binToken) != 2 {
			t.Errorf("it wasn't made: %v, %v", have, err)
		}
	}
}

func factClusterName(t *testing.T, _ *realServer, c *cluster) {
	first, err := c.cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := c.cluster(t.Context()); err != nil || second != first || first == "" {
		t.Errorf("the cluster is called %q and then %q, %v", first, second, err)
	}
}

func factSweep(t *testing.T, _ *realServer, c *cluster) {
	var reads []read
	var want []bool
	for p := range int32(3) {
		for inc := range int64(10) {
			s := space{p, 100 + inc}
			c.codes(t, change{key: s.row("x"), put: s.bins()}, change{key: s.page(1), put: s.bins(), add: []entry{{"k", nil}}})
			reads = append(reads, read{key: s.row("x")}, read{key: s.page(1)})
			stays := p != 1 || inc >= 7 || inc == 3
			want = append(want, stays, stays)
		}
	}
	reads, want = append(reads, read{key: liveKey(1)}), append(want, true)
	c.codes(t, change{key: liveKey(1), put: (&mark{token: 1, inc: 101}).bins()})
	if err := c.sweep(t.Context(), 1, 107, 103); err != nil {
		t.Fatal(err)
	}
	var got []bool
	until(t, "the sweep has ended", func() bool {
		have, err := c.read(t.Context(), reads)
		if err != nil {
			t.Fatal(err)
		}
		got = got[:0]
		for _, r := range have {
			got = append(got, r != nil)
		}
		return slices.Equal(got, want)
	})
}
