package client

import (
	"context"
	"strconv"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// minIndexKey is the metadata key of a demanded index; the proto file documents it.
	minIndexKey = "conclave-min-index"
	// requestIDKey is the metadata key of what a caller calls its request; the proto file documents it.
	requestIDKey = "conclave-request-id"
	// indexField is the field of every reply with the index of the state that it reflects.
	indexField protoreflect.Name = "index"
)

// asIs are the methods that show a node as it is. A session demands nothing of them: they are what one calls to find out why a
// node is behind. What the caller demands in so many words (Config.Token, WithToken) they get all the same.
var asIs = map[string]bool{
	vaultpb.Cluster_Status_FullMethodName: true, vaultpb.Log_TreeHeads_FullMethodName: true, vaultpb.Log_ReadRecords_FullMethodName: true,
	vaultpb.Log_GetCheckpoint_FullMethodName: true, vaultpb.Log_ListUses_FullMethodName: true,
}

// Token is the highest index that any reply to this client has carried, and at least Config.Token: given to another process
// (Config.Token) or call (WithToken), what this client has seen is seen there, whatever node answers.
func (c *Client) Token() uint64 { return max(c.seen.Load(), c.cfg.Token) }

// WithRequestID gives calls with the context a name in the usage log of the node that answers: up to 128 printable ASCII characters.
func WithRequestID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, requestIDKey, id)
}

type tokenKey struct{}

// WithToken makes calls with the context demand a state that has applied token at least, besides what the client demands itself.
func WithToken(ctx context.Context, token uint64) context.Context {
	return context.WithValue(ctx, tokenKey{}, max(token, tokenOf(ctx)))
}

func tokenOf(ctx context.Context) uint64 {
	token, _ := ctx.Value(tokenKey{}).(uint64)
	return token
}

// demanding adds what a call demands to its metadata.
func (c *Client) demanding(ctx context.Context, method string) context.Context {
	index := max(c.cfg.Token, tokenOf(ctx))
	if !c.cfg.NoSession && !asIs[method] {
		index = max(index, c.seen.Load())
	}
	if index == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, minIndexKey, strconv.FormatUint(index, 10))
}

// saw remembers the index of a reply, or of a write that is committed and not everywhere in force.
func (c *Client) saw(reply any, err error) {
	index := uint64(0)
	switch m, ok := reply.(proto.Message); {
	case kind.Of(err) == kind.BarrierPending:
		index, _ = strconv.ParseUint(kind.Metadata(err)[kind.MetaIndex], 10, 64) // none: nothing to remember
	case err == nil && ok:
		field := m.ProtoReflect().Descriptor().Fields().ByName(indexField)
		if field != nil && field.Kind() == protoreflect.Uint64Kind && !field.IsList() {
			index = m.ProtoReflect().Get(field).Uint()
		}
	}
	for {
		old := c.seen.Load()
		if index <= old || c.seen.CompareAndSwap(old, index) {
			return
		}
	}
}
