package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
)

// create makes a key through a node.
func (w *world) create(p *process, name fsm.KeyName, a hsm.Algorithm) {
	w.t.Helper()
	_, _, err := p.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Algorithm: a})
	w.must(err)
}

func message(i int) hsm.SignInput { return hsm.SignInput{Message: fmt.Appendf(nil, "message %d", i)} }

// TestAKeyCreatedThroughOneNodeSignsAtOnceThroughAnother: a follower that has not applied the creation yet must wait for it and
// not deny the key. A thousand times, so that every phase of the heartbeat is met.
func TestAKeyCreatedThroughOneNodeSignsAtOnceThroughAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		w.unsealed(3)
		nodes := w.live()
		for i := range 1000 {
			name := fsm.KeyName(fmt.Sprintf("key-%d", i))
			w.create(nodes[i%3], name, hsm.Ed25519)
			out, err := nodes[(i+1+i/3%2)%3].vault.Sign(w.ctx(), w.admin, name, message(i))
			if err != nil {
				t.Fatalf("key %d: %v", i, err)
			}
			if _, ok, err := nodes[(i+2)%3].vault.Verify(w.ctx(), w.admin, name, 0, message(i), out.Bytes); err != nil || !ok {
				t.Fatalf("key %d: the signature does not verify: %t, %v", i, ok, err)
			}
		}
	})
}

// TestARotatedKeyServesAtOnceEverywhere: what one node made with a version of a moment ago, every other node verifies and opens.
func TestARotatedKeyServesAtOnceEverywhere(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		w.create(first, "signing", hsm.ECDSAP256)
		w.create(first, "sealing", hsm.AES256GCM)
		w.create(first, "tagging", hsm.HMACSHA256)
		nodes := w.live()
		for i := range 100 {
			a, b, c := nodes[i%3].vault, nodes[(i+1+i/3%2)%3].vault, nodes[(i+2)%3].vault
			for _, name := range []fsm.KeyName{"signing", "sealing", "tagging"} {
				_, _, err := a.RotateKey(w.ctx(), w.admin, request(), name, time.Time{})
				w.must(err)
			}
			signature, err := b.Sign(w.ctx(), w.admin, "signing", message(i))
			w.must(err)
			if _, ok, err := c.Verify(w.ctx(), w.admin, "signing", 0, message(i), signature.Bytes); err != nil || !ok {
				t.Fatalf("round %d: verify: %t, %v", i, ok, err)
			}
			tag, err := a.MAC(w.ctx(), w.admin, "tagging", message(i).Message)
			w.must(err)
			if _, ok, err := b.VerifyMAC(w.ctx(), w.admin, "tagging", 0, message(i).Message, tag.Bytes); err != nil || !ok {
				t.Fatalf("round %d: verify a MAC: %t, %v", i, ok, err)
			}
			bound := vault.Context{"round": fmt.Sprint(i)}
			sealed, err := a.Encrypt(w.ctx(), w.admin, "sealing", message(i).Message, bound)
			w.must(err)
			if opened, err := c.Decrypt(w.ctx(), w.admin, "sealing", vault.Ciphertext{Bytes: sealed.Bytes, Context: bound}); err != nil || string(opened.Bytes) != string(message(i).Message) {
				t.Fatalf("round %d: decrypt: %q, %v", i, opened.Bytes, err)
			}
		}
	})
}
