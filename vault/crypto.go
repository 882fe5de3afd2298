package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// MaxData bounds what one operation signs, MACs or encrypts. Larger data is for data keys and digests.
const MaxData = hsm.MaxMessage

// dataKeySize: data keys are AES-256 keys.
const dataKeySize = 32

// Output is the result of a use, with what a caller needs to know about it.
type Output struct {
	Bytes   []byte // signature, MAC, ciphertext or plaintext
	Key     fsm.KeyName
	Version fsm.Version
	Algo    hsm.Algorithm
	Scheme  hsm.Scheme
	Warning string
	Index   uint64
}

func (o *Output) describe(s guard.Selected) {
	o.Key, o.Version, o.Algo = s.Key.Name, s.Version.Version, hsm.Algorithm(s.Key.Algorithm)
	o.Warning, o.Index = s.Warning, s.Index
}

func limited(data []byte, what string) error {
	if len(data) > MaxData {
		return fmt.Errorf("%w: a %s of %d bytes, at most %d; sign a digest, or encrypt with a data key", ErrInvalid, what, len(data), MaxData)
	}
	return nil
}

// Sign signs with the primary version.
func (v *Vault) Sign(ctx context.Context, c policy.Caller, name fsm.KeyName, in hsm.SignInput) (Output, error) {
	if err := limited(in.Message, "message"); err != nil {
		return Output{}, err
	}
	var out Output
	s, err := v.guard.Use(ctx, guard.Request{Caller: c, Op: fsm.OpSign, Name: name, Bytes: uint64(len(in.Message) + len(in.Digest))},
		func(ctx context.Context, k guard.Key, s guard.Selected) (err error) {
			alg := hsm.Algorithm(s.Key.Algorithm)
			if err := in.Validate(alg); err != nil {
				return fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			out.Scheme = in.For(alg)
			out.Bytes, err = k.Sign(ctx, in)
			return err
		})
	return finish(out, s, err)
}

// finish lets nothing out unless both checks passed.
func finish(out Output, s guard.Selected, err error) (Output, error) {
	if err != nil {
		clear(out.Bytes)
		return Output{}, err
	}
	out.describe(s)
	return out, nil
}

// MAC computes a tag with the primary version.
func (v *Vault) MAC(ctx context.Context, c policy.Caller, name fsm.KeyName, data []byte) (Output, error) {
	if err := limited(data, "message"); err != nil {
		return Output{}, err
	}
	var out Output
	s, err := v.guard.Use(ctx, guard.Request{Caller: c, Op: fsm.OpMAC, Name: name, Bytes: uint64(len(data))},
		func(ctx context.Context, k guard.Key, _ guard.Selected) (err error) {
			out.Bytes, err = k.MAC(ctx, data)
			return err
		})
	return finish(out, s, err)
}

// Context is what a caller ties a ciphertext to: authenticated, not stored.
type Context map[string]string

// Encrypt encrypts under the primary version. The ciphertext names key and version, except of a decryption key: see encryptPublic.
func (v *Vault) Encrypt(ctx context.Context, c policy.Caller, name fsm.KeyName, plaintext []byte, bound Context) (Output, error) {
	if public, err := v.decrypts(ctx, guard.Request{Caller: c, Op: fsm.OpEncrypt, Name: name}); err != nil {
		return Output{}, err
	} else if public {
		return v.encryptPublic(ctx, c, name, plaintext, bound)
	}
	return v.encrypt(ctx, c, fsm.OpEncrypt, name, plaintext, bound)
}

func (v *Vault) encrypt(ctx context.Context, c policy.Caller, op fsm.Operation, name fsm.KeyName, plaintext []byte, bound Context) (Output, error) {
	if err := limited(plaintext, "plaintext"); err != nil {
		return Output{}, err
	}
	if err := bound.validate(); err != nil {
		return Output{}, err
	}
	var out Output
	s, err := v.guard.Use(ctx, guard.Request{Caller: c, Op: op, Name: name, Bytes: uint64(len(plaintext))},
		func(ctx context.Context, k guard.Key, s guard.Selected) error {
			head, err := newHeader(s.Key.ID, s.Version.Version)
			if err != nil {
				return err
			}
			body, err := k.Encrypt(ctx, plaintext, head.aad(bound))
			out.Bytes = append(head.encode(), body...)
			return err
		})
	return finish(out, s, err)
}

// Decrypt opens a ciphertext of this key with the version that it names; of a decryption key see decryptPrivate.
func (v *Vault) Decrypt(ctx context.Context, c policy.Caller, name fsm.KeyName, in Ciphertext) (Output, error) {
	if err := in.Context.validate(); err != nil {
		return Output{}, err
	}
	if len(in.Bytes) > MaxData+maxOverhead {
		return Output{}, fmt.Errorf("%w: a ciphertext of %d bytes, at most %d", ErrInvalid, len(in.Bytes), MaxData+maxOverhead)
	}
	if private, err := v.decrypts(ctx, guard.Request{Caller: c, Op: fsm.OpDecrypt, Name: name, Reason: in.Reason}); err != nil {
		return Output{}, err
	} else if private {
		return v.decryptPrivate(ctx, c, name, in)
	}
	return v.decrypt(ctx, c, fsm.OpDecrypt, name, in)
}

// decrypt opens for an operation: fsm.OpDecrypt, or fsm.OpRewrap, whose plaintext stays in the node.
func (v *Vault) decrypt(ctx context.Context, c policy.Caller, op fsm.Operation, name fsm.KeyName, in Ciphertext) (Output, error) {
	head, body, headErr := parseHeader(in.Bytes)
	req := guard.Request{Caller: c, Op: op, Name: name, Version: head.version, Reason: in.Reason, Bytes: uint64(len(body))}
	if headErr != nil { // who may not use the key learns nothing about the ciphertext either
		if _, err := v.guard.Inspect(ctx, req); err != nil {
			return Output{}, err
		}
		return Output{}, fmt.Errorf("%w: %w", ErrNotVerified, headErr)
	}
	var out Output
	s, err := v.guard.Use(ctx, req, func(ctx context.Context, k guard.Key, s guard.Selected) (err error) {
		if !head.names(s.Key.ID) {
			return fmt.Errorf("%w: the ciphertext is of another key", ErrNotVerified)
		}
		if in.Version != 0 && in.Version != head.version {
			return fmt.Errorf("%w: version %d was asked for, and the ciphertext is of version %d", ErrInvalid, in.Version, head.version)
		}
		out.Bytes, err = k.Decrypt(ctx, body, head.aad(in.Context))
		return err
	})
	if errors.Is(err, guard.ErrNotFound) && head.version != 0 && v.keyExists(name) {
		err = fmt.Errorf("%w: the key has no version %d", ErrNotVerified, head.version)
	}
	return finish(out, s, notVerified(err))
}

// Rewrap moves a ciphertext from the version that it names to the primary one: both are used in this node, and the plaintext does not leave it. From is the
// version that it was under. The context stays, and must be given.
func (v *Vault) Rewrap(ctx context.Context, c policy.Caller, name fsm.KeyName, in Ciphertext) (out Output, from fsm.Version, err error) {
	if err := in.Context.validate(); err != nil {
		return Output{}, 0, err
	}
	if len(in.Bytes) > MaxData+maxOverhead {
		return Output{}, 0, fmt.Errorf("%w: a ciphertext of %d bytes, at most %d", ErrInvalid, len(in.Bytes), MaxData+maxOverhead)
	}
	opened, err := v.decrypt(ctx, c, fsm.OpRewrap, name, in)
	if err != nil {
		return Output{}, 0, err
	}
	defer clear(opened.Bytes)
	out, err = v.encrypt(ctx, c, fsm.OpEncrypt, name, opened.Bytes, in.Context)
	return out, opened.Version, err
}

func (v *Vault) keyExists(name fsm.KeyName) bool { _, found := v.state().Key(name); return found }

// DataKey is a fresh AES-256 key, in clear for the caller and encrypted for its storage.
type DataKey struct {
	Plaintext []byte
	Output
}

// GenerateDataKey makes a data key under the primary version; Decrypt gives it back.
func (v *Vault) GenerateDataKey(ctx context.Context, c policy.Caller, name fsm.KeyName, bound Context) (DataKey, error) {
	plaintext := make([]byte, dataKeySize)
	if err := v.cfg.Token.Random(plaintext); err != nil {
		return DataKey{}, err
	}
	out, err := v.encrypt(ctx, c, fsm.OpDataKey, name, plaintext, bound)
	if err != nil {
		clear(plaintext)
		return DataKey{}, err
	}
	return DataKey{Plaintext: plaintext, Output: out}, nil
}

// VerifyMAC checks a tag against one version, or against every version whose state allows it, newest first.
func (v *Vault) VerifyMAC(ctx context.Context, c policy.Caller, name fsm.KeyName, n fsm.Version, data, mac []byte) (Output, bool, error) {
	if err := limited(data, "message"); err != nil {
		return Output{}, false, err
	}
	return v.eachVersion(ctx, guard.Request{Caller: c, Op: fsm.OpVerifyMAC, Name: name, Version: n}, func(req guard.Request) (guard.Selected, error) {
		return v.guard.Use(ctx, req, func(ctx context.Context, k guard.Key, _ guard.Selected) error { return k.VerifyMAC(ctx, data, mac) })
	})
}

// Verify checks a signature with public halves, likewise.
func (v *Vault) Verify(ctx context.Context, c policy.Caller, name fsm.KeyName, n fsm.Version, in hsm.SignInput, signature []byte) (Output, bool, error) {
	if err := limited(in.Message, "message"); err != nil {
		return Output{}, false, err
	}
	return v.eachVersion(ctx, guard.Request{Caller: c, Op: fsm.OpVerify, Name: name, Version: n}, func(req guard.Request) (guard.Selected, error) {
		s, err := v.inspectPublic(ctx, req)
		if err != nil {
			return s, err
		}
		alg := hsm.Algorithm(s.Key.Algorithm)
		if err := in.Validate(alg); err != nil {
			return s, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return s, hsm.Verify(alg, in, s.Version.PublicKey, signature)
	})
}

// inspectPublic selects a version for a use of its public half. That needs no token, but the gate that stands before the token is one for
// this node: what it does not permit is not computed here by another way.
func (v *Vault) inspectPublic(ctx context.Context, req guard.Request) (guard.Selected, error) {
	s, err := v.guard.Inspect(ctx, req)
	if err != nil {
		return s, err
	}
	return s, hsm.Permit(v.cfg.Token, hsm.Algorithm(s.Key.Algorithm))
}

// eachVersion tries the asked version, or all of them from the newest. "Does not verify" is a negative answer too: it is
// given after catching up, because a version made a moment ago may not be here yet.
func (v *Vault) eachVersion(ctx context.Context, req guard.Request, verify verifier) (Output, bool, error) {
	out, ok, err := v.tryVersions(req, verify)
	if ok || err != nil {
		return out, ok, err
	}
	if err := v.catchUp(ctx); err != nil {
		return Output{}, false, fmt.Errorf("%w: %w", guard.ErrUnavailable, err)
	}
	return v.tryVersions(req, verify)
}

type verifier func(guard.Request) (guard.Selected, error)

// tryVersions: a version whose state forbids it counts only if no other verifies.
func (v *Vault) tryVersions(req guard.Request, verify verifier) (Output, bool, error) {
	var forbidden, mismatch error
	for _, n := range v.candidates(req) {
		req.Version = n
		s, err := verify(req)
		switch {
		case err == nil:
			out, err := finish(Output{}, s, nil)
			return out, true, err
		case errors.Is(err, hsm.ErrVerify):
			mismatch = err
		case errors.Is(err, guard.ErrKeyState), errors.Is(err, guard.ErrNeedsApproval):
			forbidden = err
		default:
			return Output{}, false, err
		}
	}
	if mismatch == nil {
		return Output{}, false, forbidden
	}
	return Output{Key: req.Name, Index: v.state().Applied()}, false, nil
}

// candidates lists versions to try. Version 0 (the primary) stands for a key that is not here, so that the guard says so.
func (v *Vault) candidates(req guard.Request) []fsm.Version {
	k, found := v.state().Key(req.Name)
	if req.Version != 0 || !found {
		return []fsm.Version{req.Version}
	}
	var all []fsm.Version
	for _, kv := range slices.Backward(k.Versions) {
		all = append(all, kv.Version)
	}
	return all
}

// PublicKey returns the public half of a version.
func (v *Vault) PublicKey(ctx context.Context, c policy.Caller, name fsm.KeyName, n fsm.Version) (fsm.Key, fsm.KeyVersion, uint64, error) {
	k, index, err := v.Key(ctx, c, name)
	if err != nil {
		return fsm.Key{}, fsm.KeyVersion{}, 0, err
	}
	if n == 0 {
		n = k.Primary
	}
	kv, found := k.Version(n)
	switch {
	case !found:
		return k, kv, 0, fmt.Errorf("%w: key %q has no version %d", guard.ErrNotFound, name, n)
	case len(kv.PublicKey) == 0:
		return k, kv, 0, fmt.Errorf("%w: %s is a secret key, it has no public half", ErrInvalid, k.Algorithm)
	}
	return k, kv, index, nil
}
