package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// otherRelease is a token whose library is another one now, with an algorithm less.
type otherRelease struct {
	hsm.Token
	lacks hsm.Algorithm
}

func (o otherRelease) Info() hsm.Info {
	info := o.Token.Info()
	info.Library = "2.0\n" + strings.Repeat("x", 600)
	return info
}

func (o otherRelease) Capabilities() []hsm.Capability {
	all := o.Token.Capabilities()
	for i := range all {
		if all[i].Algorithm == o.lacks {
			all[i].Can, all[i].Missing = all[i].Can&^hsm.CanSign, "CKM_EDDSA: CKR_MECHANISM_INVALID (0x70)"
		}
	}
	return all
}

// TestANodeDescribesItsDevice: after a restart with another release of its HSM the cluster knows what the node can do, and refuses
// a key that it could not use, with the node and the device's words; when the algorithm is back it may be used again.
func TestANodeDescribesItsDevice(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.alter = func(p *process, vc *vault.Config) {
			if p.id == "n2" {
				vc.Token = otherRelease{vc.Token, hsm.Ed25519}
			}
		}
		w.stop("n2")
		w.restart("n2")
		device := func() fsm.Device {
			n, _ := first.replica.State().Node("n2")
			return n.Device
		}
		w.within(20*time.Second, "n2's device is told", func() bool { return strings.HasPrefix(device().Library, "2.0 x") })
		if d := device(); len(d.Library) != 512 || slices.Contains(d.Algorithms, "ed25519") || len(d.Lacks) != 1 {
			t.Errorf("the state has %+v", d)
		}
		_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "k", Algorithm: hsm.Ed25519})
		if err == nil || !strings.Contains(err.Error(), "node n2") || !strings.Contains(err.Error(), "CKM_EDDSA") {
			t.Errorf("a key that n2 cannot use: %v", err)
		}
		w.alter = nil
		w.stop("n2")
		w.restart("n2")
		w.within(20*time.Second, "n2's device is told again", func() bool { return len(device().Lacks) == 0 })
		w.create(first, "k", hsm.Ed25519)
		if got := len(w.logged(first, "node.device", "node/n2")); got != 2 {
			t.Errorf("%d events of n2's device, want 2", got)
		}
	})
}
