package vault

import (
	"context"

	"github.com/conclave-vault/conclave/fsm"
)

// eraseDestroyed gives this node's receipt for versions that are being destroyed. Their wrapped keys left the state by the entry that
// began the destruction; here the HSM's working copies go, sealed or not. Nobody can be using one: their use was forbidden when the
// destruction was scheduled, a day ago at the least.
//
// The receipt says fsm.ErasureState, and no more than that: snapshots and log entries from before, sealed as they are, still lie on the
// disk until they are replaced.
func (v *Vault) eraseDestroyed() {
	s := v.state()
	list := s.AwaitingErasure(v.cfg.Node, fsm.MaxErased)
	if _, member := s.Node(v.cfg.Node); len(list) == 0 || !member {
		return
	}
	v.once(&v.erasing, func(ctx context.Context) {
		v.guard.Forget(s)
		// No request id: a receipt that comes twice counts once, and one must come from a node whose clock is wrong, too.
		_, err := v.submit(ctx, proposal{}, fsm.Entry{
			Command: fsm.RecordErasure{Node: v.cfg.Node, Boot: v.cfg.Boot, Erasure: fsm.ErasureState, Erased: list}, Actor: v.actor(),
		})
		if err != nil && ctx.Err() == nil {
			v.log.Info("the receipt for destroyed keys is not recorded yet", "count", len(list), "err", err)
		}
	})
}
