package guard_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

// secret uses a key through the guard, and gives nothing unless the guard let it out.
func (n *node) secret(op fsm.Operation, name fsm.KeyName, use func(context.Context, guard.Key, guard.Selected) ([]byte, error)) ([]byte, error) {
	n.t.Helper()
	var out []byte
	_, err := n.guard.Use(context.Background(), guard.Request{Caller: n.admin, Op: op, Name: name},
		func(ctx context.Context, k guard.Key, s guard.Selected) (err error) {
			out, err = use(ctx, k, s)
			if n.between != nil {
				n.between()
			}
			return err
		})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// TestDerive: agreements and decapsulations pass the guard's two checks like any use and come out right. An agreement needs an active
// key; a decapsulation is a decryption, and goes on when no more is encapsulated.
func TestDerive(t *testing.T) {
	n := newNode(t)
	n.create("dh", hsm.ECDHX25519, "")
	n.create("kem", hsm.MLKEM768, "")
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := hsm.MarshalPublicKey(hsm.ECDHX25519, peer.PublicKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	agree := func(ctx context.Context, k guard.Key, _ guard.Selected) ([]byte, error) { return k.Agree(ctx, spki) }
	got, err := n.secret(fsm.OpDerive, "dh", agree)
	want(t, err, nil)
	dh, _ := n.machine.State().Key("dh")
	point, err := hsm.ParsePublicKey(hsm.ECDHX25519, dh.Versions[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err := peer.ECDH(public); err != nil || !bytes.Equal(got, theirs) {
		t.Errorf("we have %x, the peer %x, %v", got, theirs, err)
	}

	kem, _ := n.machine.State().Key("kem")
	shared, ciphertext, err := hsm.Encapsulate(hsm.MLKEM768, kem.Versions[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	decapsulate := func(ctx context.Context, k guard.Key, _ guard.Selected) ([]byte, error) {
		return k.Decapsulate(ctx, ciphertext)
	}
	if got, err := n.secret(fsm.OpDecapsulate, "kem", decapsulate); err != nil || !bytes.Equal(got, shared) {
		t.Errorf("decapsulated %x, %v; want %x", got, err, shared)
	}

	n.between = func() {
		n.apply(fsm.ChangeKey{Name: "dh", Action: fsm.ActionDeactivate, Reason: "test"})
		n.between = nil
	}
	_, err = n.secret(fsm.OpDerive, "dh", agree)
	want(t, err, guard.ErrKeyState)
	n.apply(fsm.ChangeKey{Name: "kem", Action: fsm.ActionDeactivate, Reason: "test"})
	if got, err := n.secret(fsm.OpDecapsulate, "kem", decapsulate); err != nil || !bytes.Equal(got, shared) {
		t.Errorf("deactivated: decapsulated %x, %v; want %x", got, err, shared)
	}
	_, err = n.guard.Inspect(context.Background(), guard.Request{Caller: n.admin, Op: fsm.OpEncapsulate, Name: "kem"})
	want(t, err, guard.ErrKeyState)
	n.between = func() {
		n.apply(fsm.ChangeKey{Name: "kem", Action: fsm.ActionCompromise, Reason: "test"})
		n.between = nil
	}
	_, err = n.secret(fsm.OpDecapsulate, "kem", decapsulate)
	want(t, err, guard.ErrNeedsApproval)
}

// TestDecryptOAEP: a decryption key serves as long as any other decryption, deactivated too.
func TestDecryptOAEP(t *testing.T) {
	n := newNode(t)
	n.create("inbox", hsm.RSA2048OAEP, "")
	inbox, _ := n.machine.State().Key("inbox")
	ciphertext, err := hsm.EncryptOAEP(hsm.RSA2048OAEP, inbox.Versions[0].PublicKey, []byte("a data key"))
	if err != nil {
		t.Fatal(err)
	}
	decrypt := func(ctx context.Context, k guard.Key, _ guard.Selected) ([]byte, error) {
		return k.Decrypt(ctx, ciphertext, nil)
	}
	for _, action := range []fsm.KeyAction{"", fsm.ActionDeactivate} {
		if action != "" {
			n.apply(fsm.ChangeKey{Name: "inbox", Action: action, Reason: "test"})
		}
		if got, err := n.secret(fsm.OpDecrypt, "inbox", decrypt); err != nil || string(got) != "a data key" {
			t.Errorf("decrypted %q, %v", got, err)
		}
	}
	n.apply(fsm.ChangeKey{Name: "inbox", Action: fsm.ActionCompromise, Reason: "test"})
	_, err = n.secret(fsm.OpDecrypt, "inbox", decrypt)
	want(t, err, guard.ErrNeedsApproval)
}

// TestEveryOperationFitsOneFamily: what does not fit the key's family is refused before any key is unwrapped.
func TestEveryOperationFitsOneFamily(t *testing.T) {
	n := newNode(t)
	fits := map[hsm.Algorithm][]fsm.Operation{
		hsm.AES128GCM: {fsm.OpEncrypt, fsm.OpDecrypt, fsm.OpDataKey}, hsm.HMACSHA512: {fsm.OpMAC, fsm.OpVerifyMAC},
		hsm.MLDSA44: {fsm.OpSign, fsm.OpVerify}, hsm.RSA2048OAEP: {fsm.OpDecrypt, fsm.OpEncryptPublic}, hsm.ECDHP256: {fsm.OpDerive},
		hsm.MLKEM768: {fsm.OpEncapsulate, fsm.OpDecapsulate},
	}
	for alg, permitted := range fits {
		name := fsm.KeyName(alg)
		n.create(name, alg, "")
		allowed := map[fsm.Operation]bool{}
		for _, op := range permitted {
			allowed[op] = true
		}
		for op := fsm.OpEncrypt; op <= fsm.OpEncryptPublic; op++ {
			target := guard.ErrWrongKey
			if allowed[op] {
				target = nil
			}
			_, err := n.guard.Inspect(context.Background(), guard.Request{Caller: n.admin, Op: op, Name: name})
			want(t, err, target)
		}
	}
	if n.opened.Load() != 0 {
		t.Error("a key was unwrapped to find out what it is for")
	}
}
