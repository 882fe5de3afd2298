package node

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// losing is a token whose device can go away: its master with it, as every backend's does.
type losing struct {
	token.Token
	away atomic.Bool
}

func (l *losing) gone() error {
	if l.away.Load() {
		return fmt.Errorf("%w: %w: CKR_DEVICE_REMOVED", hsm.ErrSealed, hsm.ErrLost)
	}
	return nil
}

func (l *losing) Master() (hsm.MasterInfo, error) {
	if err := l.gone(); err != nil {
		return hsm.MasterInfo{}, err
	}
	return l.Token.Master()
}

func (l *losing) ImportMaster(ctx context.Context, m *hsm.Master, p *hsm.Persistence) error {
	if err := l.gone(); err != nil {
		return err
	}
	return l.Token.ImportMaster(ctx, m, p)
}

func (l *losing) RestoreMaster(ctx context.Context) (hsm.Persistence, error) {
	if err := l.gone(); err != nil {
		return hsm.Persistence{}, err
	}
	return l.Token.RestoreMaster(ctx)
}

// takeAway ends the master session of the token below, which is what ends working copies.
func (l *losing) takeAway(ctx context.Context) error {
	l.away.Store(true)
	return l.Seal(ctx, false)
}

// equip gives n2 such a token.
func (w *world) equip() func() *losing {
	var l atomic.Pointer[losing]
	w.alter = func(p *process, c *vault.Config) {
		if p.id == "n2" {
			l.Store(&losing{Token: p.token})
			c.Token = l.Load()
		}
	}
	return l.Load
}

func (w *world) statusOf(id fsm.NodeID) vault.NodeStatus {
	w.t.Helper()
	st, err := w.node("n1").vault.Status(w.ctx(), w.admin)
	w.must(err)
	for _, n := range st.Nodes {
		if n.ID == id {
			return n
		}
	}
	w.t.Fatalf("no status of %s", id)
	return vault.NodeStatus{}
}

// TestALostDeviceSealsItsNode: the node says so and refuses, the others serve, and custodians unseal it as after a restart.
func TestALostDeviceSealsItsNode(t *testing.T) {
	inWorld(t, func(w *world) {
		device := w.equip()
		w.create(w.unsealed(3), "pay", hsm.Ed25519)
		if st := w.statusOf("n2"); st.Sealed || st.Error != "" || !w.signs(w.node("n2"), "pay") {
			t.Fatalf("before: %+v", st)
		}
		w.must(device().takeAway(w.ctx()))
		if w.signs(w.node("n2"), "pay") {
			t.Error("n2 signs without its device")
		}
		if st := w.statusOf("n2"); !st.Sealed || !strings.Contains(st.Error, "CKR_DEVICE_REMOVED") {
			t.Errorf("without its device: %+v", st)
		}
		if err := w.node("n2").vault.Ready(); err == nil || !strings.Contains(err.Error(), "lost its master") {
			t.Errorf("n2 is ready: %v", err)
		}
		if !w.signs(w.node("n1"), "pay") || !w.signs(w.node("n3"), "pay") {
			t.Error("the others do not serve")
		}
		device().away.Store(false)
		w.never(5*time.Second, "n2 unseals itself", func() bool { return !w.node("n2").sealed() })
		if st := w.statusOf("n2"); !st.Sealed || !strings.Contains(st.Error, "is back") {
			t.Errorf("with its device back: %+v", st)
		}
		w.unseal("n2")
		if st := w.statusOf("n2"); st.Sealed || st.Error != "" || !w.signs(w.node("n2"), "pay") {
			t.Errorf("unsealed again: %+v", st)
		}
	})
}

// TestALostDeviceRestoresItsMaster by itself where the token keeps it.
func TestALostDeviceRestoresItsMaster(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true
		device := w.equip()
		w.create(w.unsealed(3), "pay", hsm.Ed25519)
		for range 2 {
			w.must(device().takeAway(w.ctx()))
			w.within(2*time.Second, "the loss is noticed", func() bool { return w.node("n2").sealed() })
			w.never(5*time.Second, "n2 serves without its device", func() bool { return w.signs(w.node("n2"), "pay") })
			device().away.Store(false)
			w.within(5*time.Second, "n2 serves again", func() bool { return w.signs(w.node("n2"), "pay") })
		}
	})
}

// TestASealOrderDuringALoss is obeyed when the device is back: the kept master of before is not used, and not kept.
func TestASealOrderDuringALoss(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true
		device := w.equip()
		w.create(w.unsealed(3), "pay", hsm.Ed25519)
		w.must(device().takeAway(w.ctx()))
		w.within(2*time.Second, "the loss is noticed", func() bool { return w.node("n2").sealed() })
		_, err := w.node("n1").vault.Seal(w.ctx(), w.admin, request(), "alarm")
		w.must(err)
		device().away.Store(false)
		w.never(10*time.Second, "n2 is unsealed", func() bool { return !w.node("n2").sealed() })
		w.stop("n2")
		w.keepsNoMaster("n2")
		w.start("n2")
		w.serving(3)
		w.unseal(w.ids()...)
	})
}
