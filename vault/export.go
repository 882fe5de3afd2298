package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Export is what a caller asks for.
type Export struct {
	Name      fsm.KeyName
	Version   fsm.Version // 0: the primary one
	Recipient hsm.Recipient
}

// Exported is a version's material, wrapped to the recipient.
type Exported struct {
	Node      fsm.NodeID    `json:"node"` // whose token wrapped it
	Version   fsm.Version   `json:"version"`
	Algorithm hsm.Algorithm `json:"algorithm"`
	Wrapped   []byte        `json:"wrapped"`
	Index     uint64        `json:"index"` // of a state that has the export in its log
}

// Exports reports whether the next version of a key would be made exportable, by this node's state.
func (v *Vault) Exports(k fsm.Key) bool { return v.state().Exports(&k) }

// exportQuery asks a node whose token can.
type exportQuery struct {
	Caller    policy.Caller `json:"caller"`
	RequestID fsm.RequestID `json:"request_id"`
	Name      fsm.KeyName   `json:"name"`
	Version   fsm.Version   `json:"version"`
	Recipient []byte        `json:"recipient"` // DER SubjectPublicKeyInfo
}

// ExportKey hands a version's material out, wrapped to the recipient's key: by this node's token, or, if that cannot, by that of the first other node that can. It
// is in the lifecycle log before it is released; the same request id stands for the same export. The caller is an administrator.
func (v *Vault) ExportKey(ctx context.Context, c policy.Caller, id fsm.RequestID, e Export) (Exported, error) {
	if id == "" {
		return Exported{}, fmt.Errorf("%w: an export needs a request id (UUIDv7)", ErrInvalid)
	}
	s, err := v.current(ctx)
	if err != nil {
		return Exported{}, err
	}
	if err := policy.Administer(s, c); err != nil {
		return Exported{}, err
	}
	if err := refused(s.Speaks(fsm.ExportKey{})); err != nil {
		return Exported{}, err
	}
	q := exportQuery{Caller: c, RequestID: id, Name: e.Name, Version: e.Version, Recipient: e.Recipient.PublicKey()}
	out, err := v.exportHere(ctx, q)
	if err == nil || !errors.Is(err, hsm.ErrUnsupported) {
		return out, err
	}
	return v.exportElsewhere(ctx, q, err)
}

// exportElsewhere asks the others in turn. Whoever says no for a reason that is the same everywhere has answered for all.
func (v *Vault) exportElsewhere(ctx context.Context, q exportQuery, failed error) (Exported, error) {
	for _, n := range v.state().Nodes() {
		if n.ID == v.cfg.Node || n.DrainedAt != 0 {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		out, err := askNode[Exported](asking, v, n.ID, kindExport, q)
		cancel()
		if err == nil || !tryAnother(err) {
			return out, err
		}
		failed = errors.Join(failed, fmt.Errorf("node %s: %w", n.ID, err))
	}
	return Exported{}, fmt.Errorf("no node of this cluster can export the key now: %w", failed)
}

// tryAnother: the node cannot, or not now.
func tryAnother(err error) bool {
	for _, target := range []error{hsm.ErrUnsupported, hsm.ErrSealed, guard.ErrNoLease, guard.ErrUnavailable, ErrUnavailable, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// exportHere is the side of the node whose token wraps. The guard authorises by this node's state.
func (v *Vault) exportHere(ctx context.Context, q exportQuery) (Exported, error) {
	to, err := hsm.ParseRecipient(q.Recipient, "")
	if err != nil {
		return Exported{}, err
	}
	if !v.guard.CanExport() {
		return Exported{}, fmt.Errorf("node %s: %w", v.cfg.Node, hsm.NoExport(v.cfg.Token))
	}
	req := guard.Request{Caller: q.Caller, Op: fsm.OpExport, Name: q.Name, Version: q.Version}
	wrapped, sel, err := v.guard.Export(ctx, req, to, func(ctx context.Context, sel guard.Selected) error { return v.recordExport(ctx, q, to, sel) })
	if err != nil {
		return Exported{}, err
	}
	return Exported{
		Node: v.cfg.Node, Version: sel.Version.Version, Algorithm: hsm.Algorithm(sel.Key.Algorithm), Wrapped: wrapped, Index: sel.Index,
	}, nil
}

// recordExport returns when the log has the export, applied here.
func (v *Vault) recordExport(ctx context.Context, q exportQuery, to hsm.Recipient, sel guard.Selected) error {
	fingerprint := to.Fingerprint()
	hash := requestHash("keys.export", string(q.Name), fmt.Sprint(q.Version), string(to.Form()), hex.EncodeToString(fingerprint[:]))
	r, err := v.write(ctx, q.Caller, q.RequestID, hash, fsm.ExportKey{
		Name: sel.Key.Name, ID: sel.Key.ID, Version: sel.Version.Version, Form: string(to.Form()), Recipient: fingerprint,
	})
	if err != nil {
		return err
	}
	if r.Version != sel.Version.Version { // a repeat, and another version is primary by now
		return &Refused{fsm.CodeVersionConflict, fmt.Sprintf("this request exported version %d of key %s, and version %d is primary by now: name the version (--version)", r.Version, q.Name, sel.Version.Version)}
	}
	return nil
}
