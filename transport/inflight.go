package transport

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/conclave-vault/conclave/cluster/refusal"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/vault/pki"
)

// inFlight counts the calls under way. gRPC asks it at a call's headers, before the message is read.
type inFlight struct {
	node     string
	refusals *refusal.Log

	mu     sync.Mutex
	all    int
	client map[string]int
}

func newInFlight(node string, refusals *refusal.Log) *inFlight {
	return &inFlight{node: node, refusals: refusals, client: make(map[string]int)}
}

// enter implements tap.ServerInHandle. The call has its place until the stream ends.
func (f *inFlight) enter(ctx context.Context, info *tap.Info) (context.Context, error) {
	who := clientOf(ctx)
	if err := f.take(who, info.FullMethodName); err != nil {
		if p, ok := peer.FromContext(ctx); ok {
			f.refusals.Refused(p.Addr, info.FullMethodName, err)
		}
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	context.AfterFunc(ctx, func() {
		cancel()
		f.give(who)
	})
	return ctx, nil
}

func (f *inFlight) take(who, method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	meta := map[string]string{kind.MetaNode: f.node}
	switch {
	case strings.Count(method, "/") != 2: // gRPC would refuse it without a word here
		return kind.New(kind.Unsupported, fmt.Sprintf("%.100q is no method", method), meta)
	case f.all >= maxInFlight:
		return kind.New(kind.Limit, fmt.Sprintf("node %s has %d calls under way; try again, or another node", f.node, maxInFlight), meta)
	case f.client[who] >= maxInFlightPerClient:
		return kind.New(kind.Limit, fmt.Sprintf("this client has %d calls under way at node %s; wait for some to end", maxInFlightPerClient, f.node), meta)
	}
	f.all++
	f.client[who]++
	return nil
}

func (f *inFlight) give(who string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all--
	if f.client[who]--; f.client[who] == 0 {
		delete(f.client, who)
	}
}

// clientOf names whose calls are counted together: the name in the certificate, else its serial number.
func clientOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return ""
	}
	c := info.State.PeerCertificates[0]
	if id, err := pki.ParseID(c); err == nil {
		return id.String()
	}
	return pki.Serial(c)
}
