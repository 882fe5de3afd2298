package usage

import "context"

type requestKey struct{}

// WithRequest says what the client calls its request, for the record of its use.
func WithRequest(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestOf is what WithRequest said; empty if nothing.
func RequestOf(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}
