package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Decryption keys (RSA-OAEP) take the ciphertexts that any program makes with the public half: there is no header in them, so they
// name no version, and no place for a context.

// decrypts reports whether the named key is a decryption key. The algorithm of a key never changes, so the answer may be this node's; a
// key that is not here is waited for as by any use of it, and a stranger hears what strangers hear.
func (v *Vault) decrypts(ctx context.Context, req guard.Request) (bool, error) {
	k, found := v.state().Key(req.Name)
	if !found {
		_, err := v.guard.Inspect(ctx, req)
		if k, found = v.state().Key(req.Name); !found {
			return false, err
		}
	}
	return hsm.Algorithm(k.Algorithm).Family() == hsm.FamilyDecrypt, nil
}

// encryptPublic encrypts with the public half of the primary version.
func (v *Vault) encryptPublic(ctx context.Context, c policy.Caller, name fsm.KeyName, plaintext []byte, bound Context) (Output, error) {
	s, err := v.inspectPublic(ctx, guard.Request{Caller: c, Op: fsm.OpEncryptPublic, Name: name})
	if err != nil {
		return Output{}, err
	}
	if err := noContext(s, bound); err != nil {
		return Output{}, err
	}
	out, err := hsm.EncryptOAEP(hsm.Algorithm(s.Key.Algorithm), s.Version.PublicKey, plaintext)
	if err != nil {
		return Output{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return finish(Output{Bytes: out}, s, nil)
}

func noContext(s guard.Selected, bound Context) error {
	if len(bound) != 0 {
		return fmt.Errorf("%w: a context with %s, whose ciphertexts have no place for one; tie it to what the data key encrypts", ErrInvalid, s.Key.Algorithm)
	}
	return nil
}

// Ciphertext is what Decrypt takes.
type Ciphertext struct {
	Bytes   []byte
	Context Context
	Version fsm.Version // of a decryption key; 0: every version whose state allows it, newest first, maxPrivateTries of them
	Reason  string      // where a class asks for one
}

// maxPrivateTries bounds the versions that a ciphertext is tried with if it is said of none: a private RSA operation takes milliseconds of a
// device, and a key may have a thousand versions.
const maxPrivateTries = 8

// decryptPrivate opens with the private half of the asked version, or of the newest ones that may be used. "Does not verify" is one answer
// for all causes: more would be Manger's oracle.
func (v *Vault) decryptPrivate(ctx context.Context, c policy.Caller, name fsm.KeyName, in Ciphertext) (Output, error) {
	var plaintext []byte
	failed := map[fsm.Version]bool{} // eachVersion comes again after catching up, for what is new then
	req := guard.Request{Caller: c, Op: fsm.OpDecrypt, Name: name, Version: in.Version, Reason: in.Reason, Bytes: uint64(len(in.Bytes))}
	out, ok, err := v.eachVersion(ctx, req, func(req guard.Request) (guard.Selected, error) {
		if failed[req.Version] || len(failed) == maxPrivateTries {
			return guard.Selected{}, hsm.ErrVerify
		}
		var opened []byte
		s, err := v.guard.Use(ctx, req, func(ctx context.Context, k guard.Key, s guard.Selected) (err error) {
			if err := noContext(s, in.Context); err != nil {
				return err
			}
			opened, err = k.Decrypt(ctx, in.Bytes, nil)
			return err
		})
		if errors.Is(err, hsm.ErrVerify) {
			failed[req.Version] = true
		}
		if err != nil {
			clear(opened)
			return s, err
		}
		plaintext = opened
		return s, nil
	})
	switch {
	case err != nil:
		return Output{}, err
	case !ok:
		return Output{}, fmt.Errorf("%w: it was changed, or is of another key, or of a version that cannot be used any more, or of one older than the newest %d, which has to be named", ErrNotVerified, maxPrivateTries)
	}
	out.Bytes = plaintext
	return out, nil
}

// notVerified gives a device's one word for it the words of this package.
func notVerified(err error) error {
	if errors.Is(err, hsm.ErrVerify) {
		return fmt.Errorf("%w: it was changed, or the key or the context is another", ErrNotVerified)
	}
	return err
}
