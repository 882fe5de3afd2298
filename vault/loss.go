package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
)

// A token may lose its master by itself: it was taken out, or its device restarted. The token refuses every use from that moment;
// here the node learns of it, says so, and can be unsealed again by the ceremony, or restores the master that its token kept.

// noticeLoss looks whether the token still has the master that this node reported. It waits for nobody: while a seal, unseal or
// restore is under way, that one decides.
func (v *Vault) noticeLoss() {
	if v.unsealedAt.Load() == 0 || !v.unsealing.tryTake() {
		return
	}
	defer v.unsealing.give()
	v.noticeLossLocked()
}

// noticeLossLocked is noticeLoss for whose turn v.unsealing is: no import is under way, in which a token has no master for a moment.
func (v *Vault) noticeLossLocked() {
	at := v.unsealedAt.Load()
	if at == 0 || v.state().Cluster().SealedAt > at {
		return // sealed, or about to be by order: obeySeal has more to do
	}
	_, err := v.cfg.Token.Master()
	if !errors.Is(err, hsm.ErrSealed) {
		return
	}
	v.loss.Store(&err)
	v.unsealedAt.Store(0)
	v.log.Error("the HSM has no master any more; this node is sealed, check the HSM and unseal with: conclave ceremony unseal", "err", err)
	v.guard.Purge()
	if v.cfg.PersistMaster {
		v.once(&v.restoring, func(ctx context.Context) {
			if err := v.restore(ctx); err != nil && ctx.Err() == nil {
				v.log.Error("the kept master is not opened", "err", err)
			}
		})
	}
}

// sealedBy says in a few words why this node is sealed, if nobody ordered it; empty: it is not, or somebody did.
func (v *Vault) sealedBy() string {
	if _, err := v.cfg.Token.Master(); errors.Is(err, hsm.ErrLost) {
		return err.Error() // the present one, which may not be the first
	}
	if err := v.loss.Load(); err != nil && v.unsealedAt.Load() == 0 {
		return fmt.Sprintf("the HSM had lost its master and is back: %v", *err)
	}
	return ""
}
