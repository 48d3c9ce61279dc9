package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
)

// Letter is what the examples of messages know, Post what they send and get.
type Letter struct {
	To    string   `json:"to"`
	Lines []string `json:"lines,omitempty"`
}

type Post struct {
	To   []string `json:"to"`
	Line string   `json:"line,omitempty"`
	Last bool     `json:"last,omitempty"`
}

// post is a listener for letters to an address.
func post(name string) workflow.Node[Letter] {
	return workflow.Listen(name, "post", workflow.ByAny("to",
		func(l *Letter) string { return l.To }, func(m *Post) []string { return m.To }),
		func(_ context.Context, l *Letter, m Post) (done bool, err error) {
			l.Lines = append(l.Lines, m.Line)
			return m.Last, nil
		})
}

// letters starts an instance for each address, says something, and gives what each has read.
func letters(def *workflow.Definition[Letter], addresses []string, messages ...string) (read []string, err error) {
	err = run(func(ctx context.Context, eng *workflow.Engine) error {
		var handles []*workflow.Handle[Letter]
		for _, to := range addresses {
			h, err := def.Start(ctx, eng, to, Letter{To: to})
			if err != nil {
				return err
			}
			handles = append(handles, h)
		}
		for _, m := range messages {
			if err := say(ctx, eng, "post", m); err != nil {
				return err
			}
		}
		for _, h := range handles {
			l, err := h.Wait(ctx)
			if err != nil {
				return err
			}
			read = append(read, fmt.Sprint(l.To, l.Lines))
		}
		return nil
	}, def)
	return read, err
}

// A message goes out in the transaction of its event, with a key and headers beside those of
// the engine.
func ExampleCommand() {
	def := workflow.New("Send", workflow.Command("send", "out", func(_ context.Context, l *Letter) (Post, error) {
		return Post{To: []string{l.To}, Line: "hello"}, nil
	}).Key(func(l *Letter) string { return l.To }).
		Headers(func(*Letter) map[string]string { return map[string]string{"language": "en"} }))
	fmt.Println(run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "letter-1", Letter{To: "Ann"})
		if err != nil {
			return err
		}
		if _, err := h.Wait(ctx); err != nil {
			return err
		}
		r, err := eng.Log().Read(ctx, "out", 0, 0, "", eventlog.ReadCommitted)
		if err != nil {
			return err
		}
		defer r.Close()
		records, _, err := r.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", records[0].Key, records[0].Value)
		for _, h := range records[0].Headers[:4] {
			fmt.Printf("%s=%s\n", h.Key, h.Value)
		}
		return nil
	}, def))
	// Output:
	// Ann: {"to":["Ann"],"line":"hello"}
	// language=en
	// dagger-app=dagger
	// dagger-instance=letter-1
	// dagger-path=send
	// <nil>
}

// A listener takes messages until one of them is the last.
func ExampleListen() {
	def := workflow.New("Read", post("read"))
	fmt.Println(letters(def, []string{"Ann"}, `{"to":["Ann"],"line":"one"}`, `{"to":["Bob"],"line":"two"}`, `{"to":["Ann"],"line":"three","last":true}`))
	// Output: [Ann[one three]] <nil>
}

// One message goes to each instance that waits for one of its values.
func ExampleByAny() {
	def := workflow.New("Read", post("read"))
	fmt.Println(letters(def, []string{"Ann", "Bob"}, `{"to":["Ann","Bob","Cem"],"line":"all","last":true}`))
	// Output: [Ann[all] Bob[all]] <nil>
}

// A message for a task that was not reached skips what lies before it.
func ExampleSkipTo() {
	def := workflow.New("Read",
		workflow.At("wait", func(*Letter) time.Time { return time.Time{} }, func(context.Context, *Letter) error { return nil }),
		post("read").With(workflow.SkipTo("read")))
	fmt.Println(letters(def, []string{"Ann"}, `{"to":["Ann"],"line":"now","last":true}`))
	// Output: [Ann[now]] <nil>
}

// A listener that has completed works again on later messages, as long as the instance runs.
func ExampleReprocess() {
	def := workflow.New("Read", post("read").With(workflow.Reprocess()),
		workflow.Every("until three", func(*Letter) workflow.Interval { return workflow.Interval{Period: time.Millisecond} },
			func(_ context.Context, l *Letter) (bool, error) { return len(l.Lines) == 3, nil }))
	fmt.Println(letters(def, []string{"Ann"}, `{"to":["Ann"],"line":"one","last":true}`, `{"to":["Ann"],"line":"two","last":true}`, `{"to":["Ann"],"line":"three","last":true}`))
	// Output: [Ann[one two three]] <nil>
}

// Each message goes to one instance only: they share the work.
func ExampleMatchOne() {
	def := workflow.New("Work", workflow.Listen("job", "post", workflow.By("kind",
		func(*Letter) string { return "job" }, func(*Post) string { return "job" }),
		func(_ context.Context, l *Letter, m Post) (bool, error) { return true, nil }).With(workflow.MatchOne()))
	fmt.Println(letters(def, []string{"Ann", "Bob"}, `{}`, `{}`)) // with one, only one of them would end
	// Output: [Ann[] Bob[]] <nil>
}

// Ended instances are forgotten after a time, by an event.
func ExampleDefinition_Retain() {
	def := workflow.New("Short", workflow.Execute("work", func(context.Context, *Letter) error { return nil })).Retain(time.Millisecond)
	fmt.Println(run(func(ctx context.Context, eng *workflow.Engine) error {
		h, err := def.Start(ctx, eng, "a", Letter{})
		if err != nil {
			return err
		}
		for { // until it has ended, and is gone
			if _, err := h.Status(ctx); errors.Is(err, workflow.ErrNotFound) {
				return err
			} else if err != nil {
				return fmt.Errorf("status: %w", err)
			}
		}
	}, def))
	// Output: workflow: no such instance: a
}
