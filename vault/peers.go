package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/usage"
)

// Kinds of calls between nodes. Names are append-only: nodes of two versions talk.
const (
	kindPropose = "propose"
	kindStatus  = "status"
	kindRecords = "records"
	kindHead    = "head"
	kindShare   = "share"
	kindEntropy = "entropy"
	kindGossip  = "gossip"
	kindClock   = "clock"
	kindStretch = "stretch"

	kindGenerate = "generate"
	kindImport   = "import"
	kindExport   = "export"
	kindUses     = "uses"
)

// answer is how a node answers another: a body or a fault. JSON, because it must tolerate fields of a newer version; its
// decoder is total and the transport bounds its size.
type answer struct {
	Body  json.RawMessage `json:"body,omitempty"`
	Fault *fault          `json:"fault,omitempty"`
}

// HandlePeer answers calls of other nodes (and of this one to itself). from is the verified name in the caller's certificate.
func (v *Vault) HandlePeer(ctx context.Context, from fsm.NodeID, kind string, payload []byte) ([]byte, error) {
	switch kind {
	case kindPropose:
		return serve(payload, func(p proposal) (fsm.Result, error) { return v.lead(ctx, from, p) })
	case kindStatus:
		return serve(payload, func(struct{}) (NodeStatus, error) { return v.localStatus(), nil })
	case kindRecords:
		return serve(payload, func(q recordsQuery) (Records, error) { return v.localRecords(q) })
	case kindStretch:
		return serve(payload, func(q stretchQuery) (piece, error) { return v.localStretch(q) })
	case kindUses:
		return serve(payload, func(q usage.Query) (usage.Page, error) { return v.localUses(q) })
	case kindHead:
		return serve(payload, func(struct{}) (Head, error) { return v.localHead(), nil })
	case kindShare:
		return serve(payload, func(s deliveredShare) (ShareVerdict, error) { return v.receiveShare(ctx, s) })
	case kindEntropy:
		return serve(payload, func(e deliveredEntropy) (struct{}, error) { return struct{}{}, v.receiveEntropy(ctx, e) })
	case kindClock:
		return serve(payload, func(struct{}) (time.Time, error) { return v.cfg.Now().UTC(), nil })
	case kindGenerate:
		return serve(payload, func(q generateQuery) (fsm.Material, error) { return v.generateNext(ctx, q) })
	case kindImport:
		return serve(payload, func(q importQuery) (imported, error) { return v.importHere(ctx, q) })
	case kindExport:
		return serve(payload, func(q exportQuery) (Exported, error) { return v.exportHere(ctx, q) })
	case kindGossip:
		return serve(payload, func(struct{}) (string, error) { return v.cfg.GossipAddr, nil })
	default:
		return nil, fmt.Errorf("%w: a node of another version asks for %q", ErrInvalid, kind)
	}
}

func serve[Q, A any](payload []byte, handle func(Q) (A, error)) ([]byte, error) {
	var q Q
	if err := json.Unmarshal(payload, &q); err != nil {
		return json.Marshal(answer{Fault: toFault(fmt.Errorf("%w: %w", ErrInvalid, err))})
	}
	a, err := handle(q)
	if err != nil {
		return json.Marshal(answer{Fault: toFault(err)})
	}
	body, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer{Body: body})
}

// ask makes a call and takes its answer apart.
func ask[A any](call func() ([]byte, error)) (A, error) {
	var a A
	raw, err := call()
	if err != nil {
		return a, err
	}
	var envelope answer
	if err := json.Unmarshal(raw, &envelope); err != nil {
		return a, fmt.Errorf("another node's answer: %w", err)
	}
	if envelope.Fault != nil {
		return a, envelope.Fault.toError()
	}
	if err := json.Unmarshal(envelope.Body, &a); err != nil {
		return a, fmt.Errorf("another node's answer: %w", err)
	}
	return a, nil
}

// askNode asks one node, this one included.
func askNode[A any](ctx context.Context, v *Vault, to fsm.NodeID, kind string, question any) (A, error) {
	payload, err := json.Marshal(question)
	if err != nil {
		var none A
		return none, err
	}
	return ask[A](func() ([]byte, error) {
		if to == v.cfg.Node {
			return v.HandlePeer(ctx, to, kind, payload)
		}
		return v.cfg.Peers.Call(ctx, to, kind, payload)
	})
}
