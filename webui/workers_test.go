package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	_ "github.com/godagger/dagger/backends/pebble"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/workflow"
)

// served is a worker with its HTTP.
type served struct {
	*workflow.Engine
	url string
	end func() // of its HTTP alone
}

// serve runs a worker with a Pebble store of its own until the test ends.
func serve(t *testing.T, name, log string, def *workflow.Definition[pizza]) *served {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: log, Store: "pebble:" + t.TempDir(), Worker: name, Address: URL(l),
		Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := eng.Register(def); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran, answered := make(chan error, 1), make(chan error, 1)
	web, end := context.WithCancel(ctx)
	go func() { ran <- eng.Run(ctx) }()
	go func() { answered <- Serve(web, l, New(eng, Options{})); close(answered) }()
	t.Cleanup(func() {
		stop()
		for _, err := range []error{<-ran, <-answered, eng.Close()} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	return &served{eng, URL(l), func() { end(); <-answered }}
}

// TestWorkers: any of several workers with Pebble stores tells everything, in both APIs, and
// names the one that does not answer.
func TestWorkers(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	log := "kafka://" + strings.Join(c.ListenAddrs(), ",") + "/workers?partitions=4&replication=1"
	closed := false
	def := shop(&closed)
	a, b := serve(t, "a", log, def), serve(t, "b", log, def)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	until := func(what string, is func() bool) {
		t.Helper()
		for tick := time.NewTicker(5 * time.Millisecond); !is(); {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	owned := func(w *served) (n int) {
		for _, p := range w.Partitions() {
			if p.Ready {
				n++
			}
		}
		return n
	}
	until("both have partitions", func() bool { return owned(a) > 0 && owned(b) > 0 && owned(a)+owned(b) == 4 })
	var want []string
	for k := range 8 {
		id := fmt.Sprint("order-", k)
		want = append(want, id)
		if _, err := def.Start(ctx, a.Engine, id, pizza{OrderID: id}); err != nil {
			t.Fatal(err)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(address string, into any) (int, http.Header) {
		t.Helper()
		w, err := client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		data, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatalf("%s: %v: %s", address, err, data)
		}
		return w.StatusCode, w.Header
	}
	type tree struct {
		ID       string `json:"id"`
		Children []tree `json:"child_tasks"`
	}
	ids := func(l []tree) (ids []string) {
		for _, x := range l {
			ids = append(ids, x.ID)
		}
		return ids
	}
	for _, w := range []*served{a, b} {
		until("the stores have all", func() bool {
			var l []tree
			code, _ := get(w.url+"/tasks/instances", &l)
			return code == 200 && slices.Equal(ids(l), want)
		})
		for _, id := range want {
			var x tree
			if code, _ := get(w.url+"/tasks/instance/"+id, &x); code != 200 || x.ID != id || len(x.Children) != 2 || len(x.Children[0].Children) != 2 {
				t.Errorf("%s at %s: %d %+v", id, w.url, code, x)
			}
		}
	}
	// Pages: the cursor of one worker goes on at the other.
	var got []string
	cursor := ""
	for k := 0; ; k++ {
		var p struct {
			Instances []tree
			Cursor    string
		}
		address := []*served{a, b}[k%2].url + "/api/v1/instances?limit=3"
		if cursor != "" {
			address += "&cursor=" + url.QueryEscape(cursor)
		}
		if code, _ := get(address, &p); code != 200 {
			t.Fatal(code, p)
		}
		got = append(got, ids(p.Instances)...)
		if cursor = p.Cursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages: %v", got)
	}
	counts, err := a.Count(ctx, workflow.Filter{})
	if err != nil || counts.Total() != 8 {
		t.Errorf("count: %v, %v", counts, err)
	}

	b.end() // it works on, and nobody answers at its address
	for _, target := range []string{"/tasks/instances", "/api/v1/instances"} {
		var p problem
		code, header := get(a.url+target, &p)
		if code != 503 || header.Get("Content-Type") != "application/problem+json" || p.Code != "elsewhere" || p.Worker != "b" || p.Address != b.url ||
			p.Partition == nil || !strings.Contains(p.Detail, "refused") {
			t.Errorf("%s: %d %+v", target, code, p)
		}
	}
	for _, id := range want { // one instance is read from the log
		var x tree
		if code, _ := get(a.url+"/tasks/instance/"+id, &x); code != 200 || x.ID != id {
			t.Errorf("%s: %d", id, code)
		}
	}
}
