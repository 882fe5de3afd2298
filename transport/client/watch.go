package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// maxSilence is how long a watch hears nothing before it goes to another node: the server says at least every five seconds how far it is.
const maxSilence = 15 * time.Second

// Watch yields the events of the lifecycle log as they are applied, from where query says, in order, none twice and none left out, across
// ends of streams and losses of nodes. A reply without events tells only how far it is: its next_leaf, given as from_leaf to another Watch,
// goes on there. It ends with the first error that another node or another try cannot mend, or when no node has answered for Config.Timeout,
// or with ctx.
//
//	for reply, err := range c.Watch(ctx, &vaultpb.WatchRequest{Prefix: "key/payments/"}) { … }
func (c *Client) Watch(ctx context.Context, query *vaultpb.WatchRequest) iter.Seq2[*vaultpb.WatchReply, error] {
	return func(yield func(*vaultpb.WatchReply, error) bool) {
		w := &watch{client: c, query: proto.CloneOf(query), yield: yield}
		if err := w.run(ctx); err != nil && !w.stopped {
			yield(nil, err)
		}
	}
}

// watch is one Watch under way.
type watch struct {
	client  *Client
	query   *vaultpb.WatchRequest
	yield   func(*vaultpb.WatchReply, error) bool
	stopped bool // the caller has enough
	heard   time.Time
}

func (w *watch) run(ctx context.Context) error {
	seen := newSightings("")
	w.heard = time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		order := w.client.order()
		if len(order) == 0 {
			return ErrClosed
		}
		for _, e := range order {
			before := w.heard
			err := w.stream(ctx, e)
			switch {
			case w.stopped || ctx.Err() != nil:
				return ctx.Err()
			case err != nil && !another(e, err):
				return err
			}
			if w.heard != before { // it answered: what other nodes said before is history
				w.client.prefer(e)
				seen, pause = newSightings(""), firstPause
			}
			if err != nil {
				seen.add(ctx, e.address, err)
			}
		}
		if time.Since(w.heard) > w.client.cfg.Timeout {
			return seen.err()
		}
		if !wait(ctx, pause) {
			return ctx.Err()
		}
	}
}

// stream reads one stream of one node to its end; nil if the node ended it in good order.
func (w *watch) stream(ctx context.Context, e *endpoint) error {
	ctx, cancel := context.WithCancelCause(w.client.demanding(ctx, vaultpb.Log_Watch_FullMethodName))
	defer cancel(nil)
	silent := kind.New(kind.Unavailable, fmt.Sprintf("no word within %v", maxSilence), nil)
	watchdog := time.AfterFunc(maxSilence, func() { cancel(silent) })
	defer watchdog.Stop()
	s, err := vaultpb.NewLogClient(e.conn).Watch(ctx, w.query)
	for err == nil {
		var reply *vaultpb.WatchReply
		if reply, err = s.Recv(); err != nil {
			break
		}
		watchdog.Reset(maxSilence)
		w.heard = time.Now()
		w.client.saw(reply, nil)
		if !w.yield(reply, nil) {
			w.stopped = true
			return nil
		}
		w.query.FromLeaf, w.query.AfterIndex, w.query.FromNow = reply.GetNextLeaf(), 0, false
		watchdog.Reset(maxSilence) // how long the caller took is not the node's silence
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if context.Cause(ctx) == silent {
		return silent
	}
	return e.explained(kind.Received(err))
}
