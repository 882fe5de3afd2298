package client

import (
	"context"
	"errors"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// errPaging: a node answered with the page token it was asked with, which would never end.
var errPaging = errors.New("client: the node repeats a page")

// List is a paged reply.
type List interface{ GetNextPageToken() string }

// Query is a request for a page; *P points to a generated message.
type Query[P any] interface {
	*P
	proto.Message
	GetPageToken() string
}

// Pages yields page after page of a list: next is called with the token of each, from the one in query on. It stops after the
// last page or the first error.
//
//	for page, err := range client.Pages(ctx, c.ListKeys, query, func(q *vaultpb.ListKeysRequest, t string) { q.PageToken = t }) { … }
func Pages[P any, Q Query[P], R List](ctx context.Context, list func(context.Context, Q, ...grpc.CallOption) (R, error), query Q, next func(Q, string)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		query := proto.CloneOf(query)
		for {
			page, err := list(ctx, query)
			if !yield(page, err) || err != nil || page.GetNextPageToken() == "" {
				return
			}
			if page.GetNextPageToken() == query.GetPageToken() {
				yield(page, errPaging)
				return
			}
			next(query, page.GetNextPageToken())
		}
	}
}
