package webui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files")

type pizza struct {
	OrderID string `json:"order_id"`
	Broken  bool   `json:"broken,omitempty"`
	Status  string `json:"status,omitempty"`
}

type ready struct {
	OrderID string `json:"order_id"`
}

// shop is a definition whose delivery fails while it is closed.
func shop(closed *bool) *workflow.Definition[pizza] {
	return workflow.New("Pizza",
		workflow.Process("Order",
			workflow.Command("place", "orders", func(_ context.Context, p *pizza) (pizza, error) { return *p, nil }),
			workflow.Listen("ready", "ready", workflow.By("order_id", func(p *pizza) string { return p.OrderID }, func(m *ready) string { return m.OrderID }),
				func(context.Context, *pizza, ready) (bool, error) { return true, nil })),
		workflow.Process("Delivery",
			workflow.Execute("deliver", func(_ context.Context, p *pizza) error {
				if *closed {
					return errors.New("nobody opens <the door>")
				}
				p.Status = "DELIVERED"
				return nil
			})))
}

// transcript asks a handler and writes down what it says.
type transcript struct {
	t   *testing.T
	h   http.Handler
	out strings.Builder
}

// What differs from run to run: ids that calls make up, those of topics, and numbers that say
// in how many turns something was done.
var (
	random = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|"[0-9A-Z]{26}"`)
	where  = regexp.MustCompile(`,"pos":\{.*?\}\}(,\{"v":|\])`)                    // the position that an event carries, or not
	hosts  = regexp.MustCompile(`("worker": |"at": )"(\d+:\d+[\d:,]*|[^"]*/\d+)"`) // and event numbers by partition
	turns  = regexp.MustCompile(`("(?:n|run|prev|forwarded|offset|pos|msg|next|\d)": |after=)\d+`)
)

func (x *transcript) ask(method, target, body string, header ...string) *httptest.ResponseRecorder {
	x.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for k := 0; k+1 < len(header); k += 2 {
		r.Header.Set(header[k], header[k+1])
	}
	w := httptest.NewRecorder()
	x.h.ServeHTTP(w, r)
	fmt.Fprintf(&x.out, "### %s %s", method, target)
	if len(body) > 200 {
		body = body[:20] + "…"
	}
	if body != "" {
		fmt.Fprintf(&x.out, " %s", body)
	}
	if len(header) > 0 {
		fmt.Fprintf(&x.out, " %s", header)
	}
	fmt.Fprintf(&x.out, "\n%d %s\n", w.Code, w.Header().Get("Content-Type"))
	for _, name := range []string{"Location", "Link", "Allow", "Retry-After"} {
		if v := w.Header().Get(name); v != "" {
			fmt.Fprintf(&x.out, "%s: %s\n", name, v)
		}
	}
	text := w.Body.Bytes()
	if strings.Contains(w.Header().Get("Content-Type"), "json") {
		var b bytes.Buffer
		if err := json.Indent(&b, where.ReplaceAll(text, []byte("}$1")), "", "  "); err != nil {
			x.t.Errorf("%s %s: %v: %s", method, target, err, text)
		}
		text = b.Bytes()
	}
	x.out.WriteString(strings.TrimSpace(string(text)) + "\n\n")
	return w
}

func (x *transcript) get(target string) *httptest.ResponseRecorder {
	x.t.Helper()
	return x.ask(http.MethodGet, target, "")
}

func (x *transcript) compare(name string) {
	x.t.Helper()
	file, got := filepath.Join("testdata", name), hosts.ReplaceAllString(turns.ReplaceAllString(random.ReplaceAllString(x.out.String(), "<made up>"), "${1}0"), `${1}"…"`)
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			x.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		x.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		x.t.Errorf("-want +got; -rewrite writes it:\n%s", diff)
	}
}

// TestSeed is what users of the seed ask.
func TestSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		x.get("/service/ready")
		x.get("/tasks/instances")
		workflowtest.Start(kit, def, "order-1", pizza{OrderID: "1"})
		kit.Advance(time.Second)
		workflowtest.Start(kit, def, "{c}/order/2", pizza{OrderID: "2"})
		kit.Deliver("ready", ready{OrderID: "2"})
		kit.Advance(time.Second)
		x.get("/tasks/instances")
		x.get("/tasks/instance/order-1")
		x.get("/tasks/instance/order-1/Order/ready")
		x.get("/tasks/instance/%7Bc%7D/order/2")
		x.get("/tasks/instance/%7Bc%7D/order/2/Delivery")
		x.get("/tasks/instance/%7Bc%7D%2Forder%2F2%2FDelivery%2Fdeliver")
		x.get("/tasks/instances?limit=1")
		x.get("/tasks/instance/order-3")
		x.get("/tasks/instance/order-1/Order/nothing")
		x.get("/tasks/instance/")
		x.get("/tasks/instances?limit=x")
		x.get("/tasks/instances?cursor=x")
		x.ask("POST", "/tasks/instances", "{}")
		x.get("/tasks")
		x.compare("seed.txt")
	})
}

// TestAPI goes through /api/v1, rightly and wrongly.
func TestAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := true
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		settle := func() { kit.Advance(time.Second) }
		const instances = "/api/v1/instances"
		x.ask("POST", instances, `{"definition":"Pizza","id":"order-1","parameters":{"order_id":"1"}}`)
		settle()
		x.ask("POST", instances, `{"definition":"Pizza","id":"order-1"}`)
		x.get(instances + "/order-1")
		x.ask("POST", instances+"/order-1/retry", "")
		kit.Deliver("ready", ready{OrderID: "1"})
		x.get(instances + "/order-1")
		var first eventPage
		if err := json.Unmarshal(x.get(instances+"/order-1/events?limit=3").Body.Bytes(), &first); err != nil {
			t.Fatal(err)
		}
		x.get(fmt.Sprint(instances, "/order-1/events?after=", first.Next))
		closed = false
		if w := (&transcript{t: t, h: x.h}).ask("POST", instances+"/order-1/retry", `{"reason":"somebody is at home"}`); w.Code != 200 {
			t.Errorf("retry: %d %s", w.Code, w.Body) // whether it has completed again by then is open
		}
		settle()
		x.ask("POST", instances, `{"definition":"Pizza","id":"a/b?c","parameters":{"order_id":"9"}}`, "Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		settle()
		x.ask("POST", instances+"/a%2Fb%3Fc/stop", `{"reason":"the customer <called>"}`)
		settle()
		x.get(instances + "?status=STOPPED")
		x.get(instances + "?prefix=order-&definition=Pizza")
		x.get(instances + "?status=COMPLETED&limit=1&definition=None")

		x.ask("POST", instances+"/a%2Fb%3Fc/stop", "")
		x.ask("POST", instances+"/order-1/retry", "")
		x.ask("POST", instances+"/order-9/stop", "")
		x.ask("POST", instances, `{"definition":"Pizza","id":"order-7","parameters":{"order_id":"7"}}`)
		x.ask("DELETE", instances+"/order-7", "")
		x.ask("DELETE", instances+"/a%2Fb%3Fc", `{"reason":"old"}`)
		x.get(instances + "/a%2Fb%3Fc")
		x.get(instances + "/order-9")
		x.get(instances + "/order-9/events")
		x.get(instances + "/a%0Ab")
		x.get(instances + "/order-1/events?after=-1")
		x.get(instances + "?status=HAPPY")
		x.get(instances + "?limit=0")
		x.get(instances + "?limit=1001")
		x.get(instances + "?cursor=bm90aGluZw")
		x.get(instances + "?page=2")
		x.ask("PUT", instances+"/order-1", "")
		x.ask("GET", instances+"/order-1/stop", "")
		x.ask("POST", instances, `{"definition":"Pasta"}`)
		x.ask("POST", instances, `{"definition":"Pizza","parameters":{"order_id":7}}`)
		x.ask("POST", instances, `{"definition":"Pizza","parameters":[1]}`)
		x.ask("POST", instances, `{"definition":"Pizza","params":{}}`)
		x.ask("POST", instances, `{"id":"order-3"}`)
		x.ask("POST", instances, `[]`)
		x.ask("POST", instances, " ")
		x.ask("POST", instances, `{"definition":7}`)
		x.ask("POST", instances+"/order-1/retry", `{"reason":{"text":"x"}}`)
		x.get(instances + "?limit=1&limit=2")
		x.ask("POST", instances, `{"definition":"Pizza"} {}`)
		x.ask("POST", instances, `{"definition":`)
		x.ask("POST", instances, "")
		x.ask("POST", instances, `{"definition":"Pizza","id":"a\u0007b"}`)
		x.ask("POST", instances, `{"definition":"Pizza"}`, "Content-Type", "text/plain")
		x.ask("POST", instances, `{"definition":"Pizza","parameters":{"order_id":"7","status":"`+strings.Repeat("x", 5<<20)+`"}}`)
		x.ask("POST", instances, strings.Repeat("x", 17<<20))
		x.ask("POST", instances, `{"definition":"Pizza"}`, "Sec-Fetch-Site", "cross-site")
		x.ask("POST", instances, `{"definition":"Pizza"}`)
		x.h = New(kit.Engine, Options{ReadOnly: true})
		x.ask("POST", instances, `{"definition":"Pizza"}`)
		x.compare("api.txt")
	})
}

// TestPages: pages and the whole list have the same instances, each once, ended ones too.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := false
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		for k := range 2500 {
			id := fmt.Sprintf("order-%04d", k)
			if _, err := def.Start(t.Context(), kit.Engine, id, pizza{OrderID: id}); err != nil {
				t.Fatal(err)
			}
			if k%3 == 0 {
				if err := kit.Engine.Stop(t.Context(), id, ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		kit.Advance(time.Second)
		type entry struct {
			ID      string `json:"id"`
			Created int64  `json:"time_created"`
		}
		decode := func(w *httptest.ResponseRecorder) (l []entry) {
			t.Helper()
			if err := json.Unmarshal(w.Body.Bytes(), &l); err != nil {
				t.Fatalf("%v: %.200s", err, w.Body)
			}
			return l
		}
		all := decode(x.get("/tasks/instances"))
		seen := map[string]bool{}
		for _, e := range all {
			seen[e.ID] = true
		}
		if len(all) != 2500 || len(seen) != 2500 {
			t.Fatalf("%d entries, %d ids", len(all), len(seen))
		}
		var paged []entry
		for target := "/tasks/instances?limit=700"; target != ""; {
			w := x.get(target)
			paged = append(paged, decode(w)...)
			target = ""
			if cursor := w.Header().Get("Dagger-Cursor"); cursor != "" {
				target = "/tasks/instances?limit=700&cursor=" + url.QueryEscape(cursor)
			}
		}
		if diff := cmp.Diff(all, paged); diff != "" {
			t.Errorf("-whole +paged:\n%s", diff)
		}
	})
}
