// Command daggerctl looks into the log and the store of an application, and mends them:
//
//	daggerctl list --status FAILURE
//	daggerctl show order-42 --events
//	daggerctl tail --from-start
//	daggerctl verify --audit
//	daggerctl rebuild --partition 3
//	daggerctl release order-42 --reason "mended in 1.4.2"
//
// Without --log and --store it works on the embedded pair under ./dagger-data. The exit
// statuses are listed in its help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/godagger/dagger/backends/all"
	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/eventlog/kafkalog"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv))
}
