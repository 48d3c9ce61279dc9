package workflow

import "context"

type callerKey struct{}

// WithCaller is ctx with the name of who makes calls with it. Start, Stop, Retry and Delete
// record it in the event that answers the call, and History tells it. It is believed: who lets
// others make calls, as an HTTP server does, asks them who they are first. "" is nobody.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// CallerFrom is the name that WithCaller gave to ctx; "" when there is none.
func CallerFrom(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}
