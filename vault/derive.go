package vault

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// maxPeerKey bounds a peer's public key, in bytes of DER: those of the two curves have 91 and 44.
const maxPeerKey = 4096

// Agree computes the shared secret with a peer's public key, DER SubjectPublicKeyInfo on the key's own curve: Z of SP 800-56A
// §5.7.1.2, raw, because which key derivation follows is the protocol's (as KMIP's and the cloud services' calls of that name do).
// Refused are points off the curve, of small order and with an all-zero result (RFC 7748 §6.1), and the key's own public half.
func (v *Vault) Agree(ctx context.Context, c policy.Caller, name fsm.KeyName, n fsm.Version, peer []byte) (Output, error) {
	if len(peer) > maxPeerKey {
		return Output{}, fmt.Errorf("%w: a peer's public key of %d bytes, at most %d", ErrInvalid, len(peer), maxPeerKey)
	}
	var out Output
	s, err := v.guard.Use(ctx, guard.Request{Caller: c, Op: fsm.OpDerive, Name: name, Version: n, Bytes: uint64(len(peer))},
		func(ctx context.Context, k guard.Key, s guard.Selected) (err error) {
			if _, err := hsm.ParsePublicKey(hsm.Algorithm(s.Key.Algorithm), peer); err != nil {
				return fmt.Errorf("%w: the peer's public key: %w", ErrInvalid, err)
			}
			out.Bytes, err = k.Agree(ctx, peer)
			return err
		})
	return finish(out, s, err)
}

// Encapsulated is a shared key of 32 bytes, in clear for the caller and encapsulated for the key's holder.
type Encapsulated struct {
	SharedKey []byte
	Output
}

// Encapsulate makes a shared key with the public half of the primary version, as anybody could who has it (FIPS 203 ML-KEM.Encaps). The
// ciphertext is the standard's and names neither key nor version: whoever stores it stores the version beside it.
func (v *Vault) Encapsulate(ctx context.Context, c policy.Caller, name fsm.KeyName) (Encapsulated, error) {
	s, err := v.inspectPublic(ctx, guard.Request{Caller: c, Op: fsm.OpEncapsulate, Name: name})
	if err != nil {
		return Encapsulated{}, err
	}
	shared, ciphertext, err := hsm.Encapsulate(hsm.Algorithm(s.Key.Algorithm), s.Version.PublicKey)
	if err != nil {
		return Encapsulated{}, err
	}
	out, err := finish(Output{Bytes: ciphertext}, s, nil)
	return Encapsulated{SharedKey: shared, Output: out}, err
}

// Decapsulate returns the shared key that a ciphertext leads to. A ciphertext that was changed, or is of another version, leads to
// another key and to no error (implicit rejection, FIPS 203 §6.3). So the version is demanded: "the primary one" would be another one after
// each rotation, and for a moment another one on each node, and nobody would be told. Reason is for classes that ask for one.
func (v *Vault) Decapsulate(ctx context.Context, c policy.Caller, name fsm.KeyName, n fsm.Version, ciphertext []byte, reason string) (Output, error) {
	if err := limited(ciphertext, "ciphertext"); err != nil {
		return Output{}, err
	}
	if n == 0 {
		return Output{}, fmt.Errorf("%w: the version is missing: the ciphertext does not name it, and who made it was told which one it is for", ErrInvalid)
	}
	var out Output
	s, err := v.guard.Use(ctx, guard.Request{Caller: c, Op: fsm.OpDecapsulate, Name: name, Version: n, Reason: reason, Bytes: uint64(len(ciphertext))},
		func(ctx context.Context, k guard.Key, _ guard.Selected) (err error) {
			out.Bytes, err = k.Decapsulate(ctx, ciphertext)
			return err
		})
	return finish(out, s, err)
}
