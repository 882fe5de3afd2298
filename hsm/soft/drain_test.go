package soft_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// gate is a random source that can be held, so that an operation is under way for as long as a test wants.
type gate struct {
	held    atomic.Bool
	entered chan struct{}
	resume  chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan struct{}), resume: make(chan struct{})} }

func (g *gate) Read(b []byte) (int, error) {
	if g.held.Load() {
		g.entered <- struct{}{}
		<-g.resume
	}
	return io.ReadFull(rand.Reader, b)
}

// busy starts a token with an open copy and a Generate that hangs in the gate. done gives its result.
func busy(t *testing.T) (token *soft.Token, key keyuse.Key, g *gate, done chan error) {
	t.Helper()
	g = newGate()
	opt := cheap()
	opt.Random = g
	token, _ = create(t, opt)
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), nil); err != nil {
		t.Fatal(err)
	}
	b := hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: hsm.HMACSHA256}
	k, err := token.Generate(t.Context(), b, false)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = token.Open(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	return token, key, g, hold(t, token, g)
}

// hold starts a Generate that hangs in the gate, and returns when it does.
func hold(t *testing.T, token *soft.Token, g *gate) (done chan error) {
	t.Helper()
	g.held.Store(true)
	done = make(chan error, 1)
	go func() {
		_, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: hsm.AES256GCM}, false)
		done <- err
	}()
	<-g.entered
	return done
}

// TestSealWaitsForOperations: new work is refused while Seal waits; the operation under way gets its result; then all is wiped.
func TestSealWaitsForOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, key, g, done := busy(t)
		sealed := make(chan error, 1)
		go func() { sealed <- token.Seal(t.Context(), false) }()
		synctest.Wait()
		select {
		case err := <-sealed:
			t.Fatalf("Seal did not wait: %v", err)
		default:
		}
		if _, err := key.MAC(t.Context(), nil); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("new work while draining: %v", err)
		}
		if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("Master while draining: %v", err)
		}
		close(g.resume)
		if err := <-done; err != nil {
			t.Errorf("the operation under way: %v", err)
		}
		if err := <-sealed; err != nil {
			t.Errorf("Seal: %v", err)
		}
	})
}

// TestSealEndsByItself: a Seal that was given up has sealed all the same, and the keys go with the last operation.
func TestSealEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, key, g, done := busy(t)
		ctx, cancel := context.WithCancel(t.Context())
		sealed := make(chan error, 1)
		go func() { sealed <- token.Seal(ctx, false) }()
		synctest.Wait()
		cancel()
		if err := <-sealed; !errors.Is(err, context.Canceled) {
			t.Errorf("Seal given up: %v", err)
		}
		if _, err := key.MAC(t.Context(), nil); !errors.Is(err, hsm.ErrSealed) {
			t.Errorf("a copy after Seal was given up: %v", err)
		}
		m := testMaster(t, 1)
		if !bytes.Contains(token.Slots(), m.Wrap) {
			t.Error("the master is gone while an operation needs it")
		}
		close(g.resume)
		if err := <-done; err != nil {
			t.Errorf("the operation under way: %v", err)
		}
		if bytes.Contains(token.Slots(), m.Wrap) {
			t.Error("the master is still in memory")
		}
		if err := token.Seal(t.Context(), false); err != nil {
			t.Errorf("sealing again: %v", err)
		}
	})
}

// TestForgettingDoesNotWait: the kept master is gone from the disk though Seal was given up before the last operation ended.
func TestForgettingDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		opt := cheap()
		opt.Random = g
		token, _ := create(t, opt)
		if err := token.ImportMaster(t.Context(), testMaster(t, 1), &hsm.Persistence{ClusterID: "c1", Generation: 1}); err != nil {
			t.Fatal(err)
		}
		done := hold(t, token, g)
		ctx, cancel := context.WithCancel(t.Context())
		sealed := make(chan error, 1)
		go func() { sealed <- token.Seal(ctx, true) }()
		synctest.Wait()
		cancel()
		if err := <-sealed; !errors.Is(err, context.Canceled) {
			t.Errorf("Seal given up: %v", err)
		}
		if _, err := token.RestoreMaster(t.Context()); !errors.Is(err, hsm.ErrNoMaster) {
			t.Errorf("after an order to forget: %v", err)
		}
		close(g.resume)
		if err := <-done; err != nil {
			t.Errorf("the operation under way: %v", err)
		}
	})
}

// TestCloseWaitsForOperations, and whatever comes later is refused.
func TestCloseWaitsForOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token, key, g, done := busy(t)
		finished := make(chan error, 1)
		go func() { finished <- token.Close() }()
		synctest.Wait()
		select {
		case err := <-finished:
			t.Fatalf("Close did not wait: %v", err)
		default:
		}
		close(g.resume)
		if err := errors.Join(<-done, <-finished); err != nil {
			t.Error(err)
		}
		closedAnswers(t, token, key)
	})
}

func closedAnswers(t *testing.T, token *soft.Token, key keyuse.Key) {
	t.Helper()
	digest := make([]byte, 32)
	peer, err := token.Exchange().Curve().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Random":        func() error { return token.Random(digest) },
		"ImportMaster":  func() error { return token.ImportMaster(t.Context(), testMaster(t, 1), nil) },
		"RestoreMaster": func() error { _, err := token.RestoreMaster(t.Context()); return err },
		"Master":        func() error { _, err := token.Master(); return err },
		"Seal":          func() error { return token.Seal(t.Context(), true) },
		"Open":          func() error { _, err := token.Open(t.Context(), hsm.WrappedKey{}); return err },
		"Identity":      func() error { _, err := token.Identity().Sign(nil, digest, crypto.SHA256); return err },
		"Exchange":      func() error { _, err := token.Exchange().ECDH(peer.PublicKey()); return err },
		"Generate": func() error {
			_, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: hsm.AES256GCM}, false)
			return err
		},
	} {
		if err := call(); !errors.Is(err, hsm.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if _, err := key.MAC(t.Context(), nil); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("a copy after Close: %v", err)
	}
	key.Release()
}

// TestMemoryIsWiped: slots of masters and HMAC keys are zero after Seal and after Release, and none leaks. What stays is the key
// of the file.
func TestMemoryIsWiped(t *testing.T) {
	token, _ := create(t, cheap())
	if n := token.Leaked(); n != 1 {
		t.Fatalf("%d slots taken by a sealed token, want 1", n)
	}
	m := testMaster(t, 1)
	secret := bytes.Repeat([]byte{0xe7}, 32)
	if err := token.ImportMaster(t.Context(), m, &hsm.Persistence{ClusterID: "c1", Generation: 1}); err != nil {
		t.Fatal(err)
	}
	first, second := openKnown(t, token, m, secret), openKnown(t, token, m, secret)
	if n := bytes.Count(token.Slots(), secret); n != 2 || !bytes.Contains(token.Slots(), m.Bind) {
		t.Fatalf("the test finds %d copies of a secret that is there twice", n)
	}
	first.Release()
	if n := bytes.Count(token.Slots(), secret); n != 1 {
		t.Errorf("%d copies after one Release", n)
	}
	if err := token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]byte{"a working copy": secret, "wrap": m.Wrap, "wrap-export": m.WrapExport, "bind": m.Bind} {
		if bytes.Contains(token.Slots(), key) {
			t.Errorf("%s is in memory after Seal", name)
		}
	}
	second.Release()
	if n := token.Leaked(); n != 1 {
		t.Errorf("%d slots taken after Seal, want 1", n)
	}
}

// TestKeysAreOverwritten: what of a private key can be reached is zero after wiping. Keys of crypto/ecdh and crypto/mlkem, and what
// crypto/ecdsa and crypto/rsa copied, cannot be reached; circl's ML-DSA keys are overwritten as a whole, unseen from outside.
func TestKeysAreOverwritten(t *testing.T) {
	for _, alg := range []hsm.Algorithm{
		hsm.ECDSAP256, hsm.ECDSAP384, hsm.ECDSAP521, hsm.ECDSASecp256k1, hsm.Ed25519, hsm.RSA2048, hsm.RSA2048OAEP,
	} {
		material, spki, err := soft.NewMaterial(alg, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		before, after, err := soft.Residue(alg, material, spki)
		if err != nil || len(bytes.Trim(before, "\x00")) < 16 || len(bytes.Trim(after, "\x00")) != 0 {
			t.Errorf("%s: %d bytes before, %x after, %v", alg, len(before), after, err)
		}
	}
}
