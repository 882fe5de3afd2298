package node

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/fips"
	"github.com/conclave-vault/conclave/vault"
)

// guarded is a token before which a gate can be closed.
type guarded struct {
	token.Token
	gate atomic.Pointer[hsm.Gate]
}

func (g *guarded) Permit(a hsm.Algorithm) error {
	if gate := g.gate.Load(); gate != nil {
		return (*gate).Permit(a)
	}
	return nil
}

func (g *guarded) close(by hsm.Gate) { g.gate.Store(&by) }

// nothing permits no algorithm.
type nothing struct{}

func (nothing) Permit(hsm.Algorithm) error { return hsm.ErrUnsupported }

// TestPublicHalvesPassTheGate: what the setting fips forbids is not computed by the way around the token either, and what it permits is, on
// the same node and on others.
func TestPublicHalvesPassTheGate(t *testing.T) {
	inWorld(t, func(w *world) {
		var n2 atomic.Pointer[guarded]
		w.alter = func(p *process, c *vault.Config) {
			if p.id == "n2" {
				n2.Store(&guarded{Token: p.token})
				c.Token = n2.Load()
			}
		}
		first := w.unsealed(3)
		in, signatures := hsm.SignInput{Message: []byte("m")}, map[hsm.Algorithm][]byte{}
		for _, alg := range []hsm.Algorithm{hsm.ECDSASecp256k1, hsm.ECDSAP256} {
			w.create(first, fsm.KeyName("k-"+alg), alg)
			out, err := first.vault.Sign(w.ctx(), w.admin, fsm.KeyName("k-"+alg), in)
			w.must(err)
			signatures[alg] = out.Bytes
		}
		w.create(first, "k-kem", hsm.MLKEM768)
		w.create(first, "k-oaep", hsm.RSA2048OAEP)
		verify := func(p *process, alg hsm.Algorithm) (bool, error) {
			_, ok, err := p.vault.Verify(w.ctx(), w.admin, fsm.KeyName("k-"+alg), 0, in, signatures[alg])
			return ok, err
		}
		encrypt := func(p *process) error {
			_, err := p.vault.Encrypt(w.ctx(), w.admin, "k-oaep", []byte("plain"), nil)
			return err
		}
		encapsulate := func(p *process) error {
			_, err := p.vault.Encapsulate(w.ctx(), w.admin, "k-kem")
			return err
		}
		for _, alg := range []hsm.Algorithm{hsm.ECDSASecp256k1, hsm.ECDSAP256} {
			if ok, err := verify(w.node("n2"), alg); !ok || err != nil {
				t.Errorf("%s without a gate: %t, %v", alg, ok, err)
			}
		}
		n2.Load().close(fips.Gate(w.node("n2").token))
		if ok, err := verify(w.node("n2"), hsm.ECDSASecp256k1); ok || !errors.Is(err, hsm.ErrUnsupported) || !strings.Contains(err.Error(), "fips: true") {
			t.Errorf("secp256k1 behind the gate: %t, %v", ok, err)
		}
		if ok, err := verify(w.node("n3"), hsm.ECDSASecp256k1); !ok || err != nil {
			t.Errorf("secp256k1 on another node: %t, %v", ok, err)
		}
		if ok, err := verify(w.node("n2"), hsm.ECDSAP256); !ok || err != nil {
			t.Errorf("P-256 behind the gate: %t, %v", ok, err)
		}
		w.must(errors.Join(encrypt(w.node("n2")), encapsulate(w.node("n2"))))
		n2.Load().close(nothing{})
		for what, err := range map[string]error{"encrypting": encrypt(w.node("n2")), "encapsulating": encapsulate(w.node("n2"))} {
			if !errors.Is(err, hsm.ErrUnsupported) {
				t.Errorf("%s behind a gate that permits nothing: %v", what, err)
			}
		}
	})
}
