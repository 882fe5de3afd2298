package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// employ issues a client's certificate through a node and returns who it makes.
func (w *world) employ(p *process, role fsm.Role, name string) policy.Caller {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	w.must(err)
	cert, _, _, err := p.vault.IssueCertificate(w.ctx(), w.admin, request(), role, name, csr, time.Hour)
	w.must(err)
	return policy.Caller{Cluster: w.admin.Cluster, Role: role, Name: name, Serial: pki.Serial(cert)}
}

// TestSealedNodesVoteReplicateAndLog: a cluster that was never unsealed admits nodes, issues certificates, survives its leader,
// and has it all in its log.
func TestSealedNodesVoteReplicateAndLog(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(3)
		w.employ(w.node("n2"), fsm.RoleUser, "eve")
		w.join("n4", w.node("n3"))
		w.serving(4)
		w.kill("n1")
		next := w.leader("n2", "n3", "n4")
		w.employ(w.followers()[0], fsm.RoleUser, "mallory")
		w.restart(first.id)
		w.serving(4)
		for _, p := range w.live() {
			if !p.sealed() {
				t.Errorf("%s is not sealed", p.id)
			}
			if _, _, err := p.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: "pay", Algorithm: hsm.Ed25519}); !errors.Is(err, hsm.ErrSealed) {
				t.Errorf("%s makes keys: %v", p.id, err)
			}
			if got := len(w.logged(p, "certificate.issue", "")); got != 3 { // the founder's too
				t.Errorf("%s has %d certificates in its log", p.id, got)
			}
			if got := len(w.logged(p, "node.admit", "")); got != 4 {
				t.Errorf("%s has %d admissions in its log", p.id, got)
			}
		}
		if next.id == first.id {
			t.Error("the dead node leads")
		}
	})
}

// TestJoinTokensAreForOneNodeOnce: whoever takes one from the wire gets nothing with it.
func TestJoinTokensAreForOneNodeOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(1)
		token := w.newToken("n2")
		invitation := w.invite("n2", first)
		forged := invitation
		forged.Secret = make([]byte, len(invitation.Secret))
		if _, err := w.knock("n2", token, forged, first); !errors.Is(err, vault.ErrToken) {
			t.Errorf("a wrong secret: %v", err)
		}
		if _, err := w.knock("n3", token, invitation, first); !errors.Is(err, vault.ErrToken) {
			t.Errorf("another name: %v", err)
		}
		m, err := w.knock("n2", token, invitation, first)
		w.must(err)
		again, err := w.knock("n2", token, invitation, first) // its answer may have been lost
		w.must(err)
		if string(again.Certificate) != string(m.Certificate) {
			t.Error("the repeat made another certificate")
		}
		thief := w.newToken("n4")
		defer func() { w.must(thief.Close()) }()
		if _, err := w.knock("n2", thief, invitation, first); !errors.Is(err, vault.ErrToken) {
			t.Errorf("another HSM: %v", err)
		}
		invitation = w.invite("n5", first)
		time.Sleep(time.Hour) // of the bubble's clock
		if _, err := w.knock("n5", thief, invitation, first); !errors.Is(err, vault.ErrToken) {
			t.Errorf("an hour later: %v", err)
		}
		w.must(saveMembership(w.config("n2").DataDir, m))
		w.must(token.Close())
		w.start("n2")
		w.serving(2)
	})
}

// TestAWrongShareIsRefusedAtOnceAndNamed: by the node that is called, before anybody else hears of it, and the log names the
// custodian.
func TestAWrongShareIsRefusedAtOnceAndNamed(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.form(3)
		w.genesis(first)
		alice, bob := w.custodians[0], w.custodians[1]
		entry := w.node("n2")
		id, err := w.ask(entry, alice)
		w.must(err)
		share, err := bob.Share(w.admin.Cluster, 1)
		w.must(err)
		var wrong []ceremony.NodeShare
		roster, _ := first.replica.State().Roster()
		for _, n := range roster.Nodes {
			sealed, err := ceremony.SealToNode(n.ExchangeKey, w.shareInfo(id, n.ID, "alice"), share.Encode())
			w.must(err)
			wrong = append(wrong, ceremony.NodeShare{Node: n.ID, Sealed: sealed})
		}
		_, err = w.submit(entry, alice, id, wrong)
		if !errors.Is(err, vault.ErrShare) || !strings.Contains(err.Error(), "alice") {
			t.Errorf("bob's share from alice: %v", err)
		}
		refused := w.logged(first, "share.refuse", "custodian/alice")
		if len(refused) != 1 || refused[0].Detail != "node=n2" || refused[0].Reason == "" {
			t.Errorf("events: %+v", refused)
		}
		right := w.bundle(entry, bob, id)
		if _, err := entry.vault.SubmitShare(w.ctx(), w.admin, id, "bob", right, alice.Sign(ceremony.BundleMessage(id, "bob", right))); !errors.Is(err, vault.ErrShare) {
			t.Errorf("a bundle signed by another: %v", err)
		}
		w.unseal(w.ids()...)
	})
}

// TestAShareForOneNodeUnsealsOneNode: the others hear of the ceremony and stay as they are.
func TestAShareForOneNodeUnsealsOneNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.genesis(w.form(3))
		for _, who := range w.custodians[1:] {
			_, err := w.give(w.node("n2"), who, "n2")
			w.must(err)
		}
		if w.node("n2").sealed() || !w.node("n1").sealed() || !w.node("n3").sealed() {
			t.Error("not n2 alone was unsealed")
		}
		w.create(w.node("n2"), "pay", hsm.Ed25519)
		if _, err := w.node("n3").vault.Sign(w.ctx(), w.admin, "pay", message(1)); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("the sealed n3: %v", err)
		}
		verdicts, err := w.give(w.node("n3"), w.custodians[0])
		w.must(err)
		for _, v := range verdicts {
			if !v.Accepted || v.Need != threshold || v.Unsealed != (v.Node == "n2") || v.Node != "n2" && v.Have != 1 {
				t.Errorf("verdict %+v", v)
			}
		}
	})
}

// TestARestartedNodeIsUnsealedWhileOthersServe: by the same ceremony, through whatever node.
func TestARestartedNodeIsUnsealedWhileOthersServe(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create(w.unsealed(3), "pay", hsm.Ed25519)
		w.kill("n3")
		again := w.restart("n3")
		w.serving(3)
		if _, err := again.vault.Sign(w.ctx(), w.admin, "pay", message(1)); !errors.Is(err, hsm.ErrSealed) {
			t.Fatalf("restarted: %v", err)
		}
		for i, entry := range []fsm.NodeID{"n1", "n3"} {
			_, err := w.give(w.node(entry), w.custodians[i])
			w.must(err)
			if !w.signs(w.node("n1"), "pay") || !w.signs(w.node("n2"), "pay") {
				t.Error("the others do not serve meanwhile")
			}
		}
		if !w.signs(again, "pay") {
			t.Error("it does not serve")
		}
	})
}

// heldToken waits before it takes a master in.
type heldToken struct {
	hsm.Token
	before func()
}

func (h heldToken) ImportMaster(ctx context.Context, m *hsm.Master, p *hsm.Persistence) error {
	h.before()
	return h.Token.ImportMaster(ctx, m, p)
}

// TestASealOrderDuringAnUnsealWins: the node decided to unseal before the order, and finishes after it.
func TestASealOrderDuringAnUnsealWins(t *testing.T) {
	inWorld(t, func(w *world) {
		order := func() {}
		w.alter = func(p *process, vc *vault.Config) {
			if p.id == "n3" {
				vc.Token = heldToken{vc.Token, func() { order() }}
			}
		}
		first := w.form(3)
		w.genesis(first)
		order = sync.OnceFunc(func() {
			_, err := first.vault.Seal(w.ctx(), w.admin, request(), "alarm")
			w.must(err)
		})
		_, err := w.give(w.node("n3"), w.custodians[0], "n3")
		w.must(err)
		var refused *vault.Refused
		if _, err := w.give(w.node("n3"), w.custodians[1], "n3"); !errors.As(err, &refused) || refused.Code != fsm.CodeConflict {
			t.Errorf("the last share: %v", err)
		}
		if !w.node("n3").sealed() {
			t.Error("it is unsealed")
		}
		if _, err := w.node("n3").token.Master(); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("its HSM holds a master: %v", err)
		}
		w.unseal(w.ids()...) // a later ceremony is not held up by the one that was lost
	})
}

// TestAnOrderToSealSealsEverywhere: no node signs after the acknowledgement, and each HSM's master is gone.
func TestAnOrderToSealSealsEverywhere(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		_, err := w.node("n2").vault.Seal(w.ctx(), w.admin, request(), "alarm")
		w.must(err)
		for _, p := range w.live() {
			if w.signs(p, "pay") {
				t.Errorf("%s signs", p.id)
			}
			w.within(time.Second, "the HSM seals", func() bool { _, err := p.token.Master(); return errors.Is(err, hsm.ErrSealed) })
		}
		w.unseal(w.ids()...)
		if !w.signs(first, "pay") {
			t.Error("unsealed again it does not sign")
		}
	})
}

// TestAPersistentMasterComesBack after a restart of the whole cluster, with no custodian.
func TestAPersistentMasterComesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true
		w.create(w.unsealed(3), "pay", hsm.Ed25519)
		for _, id := range w.ids() {
			w.kill(id)
		}
		for _, id := range w.ids() {
			w.restart(id)
		}
		w.serving(3)
		w.within(10*time.Second, "all sign", func() bool {
			return w.signs(w.node("n1"), "pay") && w.signs(w.node("n2"), "pay") && w.signs(w.node("n3"), "pay")
		})
	})
}

// TestAPersistentMasterIsDestroyedByASealOrderThatItMissed: the node was away when the order came, so its token still has the
// master; it must not use it, and must not keep it.
func TestAPersistentMasterIsDestroyedByASealOrderThatItMissed(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true
		first := w.unsealed(3)
		w.create(first, "pay", hsm.Ed25519)
		w.kill("n3")
		_, err := first.vault.Seal(w.ctx(), w.admin, request(), "alarm")
		w.must(err)
		w.restart("n3")
		w.never(10*time.Second, "n3 is unsealed", func() bool { return !w.node("n3").sealed() })
		w.stop("n3")
		w.keepsNoMaster("n3")
		w.start("n3")
		w.serving(3)
		w.unseal(w.ids()...)
	})
}

func (w *world) keepsNoMaster(id fsm.NodeID) {
	w.t.Helper()
	token := w.reopenToken(id)
	if _, err := token.RestoreMaster(w.ctx()); !errors.Is(err, hsm.ErrNoMaster) {
		w.t.Errorf("the token of %s keeps a master: %v", id, err)
	}
	w.must(token.Close())
}
