// Command kafkabroker runs a Kafka broker from Kafka's own jars until it gets an interrupt
// or SIGTERM, or its standard input ends (with -stdin). It prints the broker's address.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/godagger/dagger/internal/kafkatest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kafkabroker:", err)
		os.Exit(1)
	}
}

func run() error {
	var o kafkatest.Options
	flag.StringVar(&o.Dir, "dir", "", "data `directory`; a temporary one when empty")
	flag.StringVar(&o.Cache, "cache", "", "`directory` for the jars; the user's cache when empty")
	flag.IntVar(&o.Port, "port", 0, "`port`; a free one when 0")
	flag.IntVar(&o.HeapMB, "heap", 0, "Java heap in `MB`; 256 when 0")
	addr := flag.String("addr-file", "", "`file` that gets the address when the broker is ready")
	stdin := flag.Bool("stdin", false, "also stop when standard input ends")
	flag.Func("set", "a broker setting, `key=value`; may be repeated", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("%q is not key=value", s)
		}
		if o.Settings == nil {
			o.Settings = map[string]string{}
		}
		o.Settings[k] = v
		return nil
	})
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	b, err := kafkatest.Start(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println(b.Addr())
	if *addr != "" {
		if err = os.WriteFile(*addr, []byte(b.Addr()+"\n"), 0o644); err != nil {
			cancel()
		}
	}
	if *stdin {
		go func() { // ends with the process
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	<-ctx.Done()
	if stop := b.Stop(); err == nil {
		err = stop
	}
	return err
}
