package workflow

import "context"

type callerKey struct{}

// WithCaller returns ctx with the name of who makes calls with it. Start, Stop, Retry and Delete
// record it in the event that answers the call, and Engine.History shows it. The name is not
// checked: a program that makes calls for others, such as an HTTP server, must know who they are.
// "" is nobody.
func WithCaller(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, callerKey{}, name)
}

// CallerFrom returns the name that WithCaller put into ctx; "" when there is none.
func CallerFrom(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}
