package workflow_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// parcel is what the commands of the tests send.
type parcel struct {
	ID      string `json:"id"`
	Key     string `json:"key,omitempty"`
	Long    int    `json:"long,omitempty"`
	Bytes   int    `json:"bytes,omitempty"`
	Headers int    `json:"headers,omitempty"`
	Tries   int    `json:"tries,omitempty"`
}

// TestCommands: keys, and none; headers; what does not fit its topic is a failure, at once and
// before anything is written, and nothing that goes out beside it is lost.
func TestCommands(t *testing.T) {
	eachLog(t, func(t *testing.T, log eventlog.Log) {
		topic := "parcels-" + log.App()
		if err := log.EnsureTopic(t.Context(), topic, 1); err != nil {
			t.Fatal(err)
		}
		def := workflow.New("Send", workflow.Command("send", topic, func(_ context.Context, p *parcel) (map[string]string, error) {
			p.Tries++
			return map[string]string{"id": p.ID, "text": strings.Repeat("x", p.Bytes)}, nil
		}).Key(func(p *parcel) string { return p.Key + strings.Repeat("k", p.Long) }).Headers(func(p *parcel) map[string]string {
			return map[string]string{"about": strings.Repeat("h", p.Headers)}
		}).With(workflow.Retry(9, 1_000_000)))
		eng, run := engineOn(t, log, def)
		run()
		start := func(p parcel) *workflow.Handle[parcel] {
			t.Helper()
			h, err := def.Start(t.Context(), eng, p.ID, p)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		var sent []*workflow.Handle[parcel]
		large := []*workflow.Handle[parcel]{start(parcel{ID: "value", Bytes: 2 << 20}), start(parcel{ID: "headers", Headers: 2 << 20})}
		for k := range 20 {
			p := parcel{ID: fmt.Sprint("p", k), Headers: 3}
			if k%2 == 0 {
				p.Key = fmt.Sprint("key", k)
			}
			sent = append(sent, start(p))
			if k == 10 {
				large = append(large, start(parcel{ID: "key", Long: 2 << 20}), start(parcel{ID: "longKey", Long: 900_000}))
			}
		}
		for _, h := range sent {
			if _, err := h.Wait(t.Context()); err != nil {
				t.Errorf("%s: %v", h.ID(), err)
			}
		}
		for _, h := range large {
			_, err := h.Wait(t.Context())
			i, err2 := h.Status(t.Context())
			if err == nil || err2 != nil || i.FailedPath != "send" || i.Tasks[0].Attempt != 1 || !strings.Contains(i.Error, "the message has 20") && !strings.Contains(i.Error, "the key of the message has") || !strings.Contains(string(i.Parameters), `"id"`) || strings.Contains(string(i.Parameters), "tries") {
				t.Errorf("%s: %.200v, %v, %.200q at attempt %d with %.100s", h.ID(), err, err2, i.Error, i.Tasks[0].Attempt, i.Parameters)
			}
		}
		got, want := map[string]string{}, map[string]string{}
		for k := range 20 {
			want[fmt.Sprint("p", k)] = "no key"
			if k%2 == 0 {
				want[fmt.Sprint("p", k)] = fmt.Sprint("key", k)
			}
		}
		for _, rec := range recordsOf(t, log, topic) {
			var m struct{ ID string }
			decode(t, rec.Value, &m)
			if got[m.ID] != "" {
				t.Errorf("%s was sent twice", m.ID)
			}
			if got[m.ID] = string(rec.Key); rec.Key == nil {
				got[m.ID] = "no key"
			}
			headers := map[string]string{}
			for _, h := range rec.Headers {
				headers[h.Key] = string(h.Value)
			}
			if len(headers) != 5 || headers["about"] != "hhh" || headers["dagger-app"] != log.App() || headers["dagger-instance"] != m.ID || headers["dagger-path"] != "send" ||
				!strings.HasPrefix(headers["dagger-idempotency-key"], m.ID+"/") {
				t.Errorf("%s has the headers %v", m.ID, headers)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("keys by id (-want +got):\n%s", diff)
		}
		sound(t, log)
	})
}
