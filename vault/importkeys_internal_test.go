package vault

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// countingKey counts how often it is destroyed.
type countingKey struct{ destroyed int }

func (*countingKey) PublicKey() []byte { return nil }
func (*countingKey) Import(context.Context, hsm.Binding, []byte) (hsm.WrappedKey, error) {
	return hsm.WrappedKey{}, hsm.ErrClosed
}
func (k *countingKey) Destroy() { k.destroyed++ }

func held(id string, deadline time.Time, owner policy.Caller) (*heldImport, *countingKey) {
	k := &countingKey{}
	return &heldImport{
		ImportKey: ImportKey{ID: id, Name: "pan", Algorithm: hsm.AES256GCM}, owner: owner.Actor(), key: k, deadline: deadline,
	}, k
}

// TestImportKeysEnd: at the deadline an import key serves no more, also before it is swept, and sweeping destroys it and no other.
func TestImportKeysEnd(t *testing.T) {
	ada := policy.Caller{Cluster: "c", Role: fsm.RoleAdministrator, Name: "ada"}
	bo := policy.Caller{Cluster: "c", Role: fsm.RoleAdministrator, Name: "bo"}
	now := time.Now()
	var keys importKeys
	early, earlyKey := held("n1/a", now.Add(time.Minute), ada)
	late, lateKey := held("n1/b", now.Add(time.Hour), ada)
	for _, h := range []*heldImport{early, late} {
		if err := keys.put(h); err != nil {
			t.Fatal(err)
		}
	}
	q := importQuery{Caller: ada, ImportKey: "n1/a", Name: "pan", Algorithm: hsm.AES256GCM}
	if h, err := keys.find(q, now.Add(time.Minute-1)); err != nil || h != early {
		t.Errorf("before the deadline: %v", err)
	}
	if _, err := keys.find(q, now.Add(time.Minute)); !errors.Is(err, guard.ErrNotFound) {
		t.Errorf("at the deadline: %v", err)
	}
	q.Caller = bo
	if _, err := keys.find(q, now); !errors.Is(err, guard.ErrNotFound) {
		t.Errorf("another administrator's: %v", err)
	}
	at := now.Add(time.Minute)
	for range 2 {
		keys.drop(func(h *heldImport) bool { return !at.Before(h.deadline) })
	}
	if earlyKey.destroyed != 1 || lateKey.destroyed != 0 || len(keys.held) != 1 {
		t.Errorf("destroyed %d and %d, %d are left", earlyKey.destroyed, lateKey.destroyed, len(keys.held))
	}
}

// TestImportKeysAreBounded: the one too many is refused, and room comes back.
func TestImportKeysAreBounded(t *testing.T) {
	var keys importKeys
	for i := range maxImportKeys {
		h, _ := held(fmt.Sprint("n1/", i), time.Now().Add(time.Hour), policy.Caller{})
		if err := keys.put(h); err != nil {
			t.Fatal(err)
		}
	}
	more, _ := held("n1/more", time.Now().Add(time.Hour), policy.Caller{})
	if err := keys.full(); !errors.Is(err, ErrInvalid) {
		t.Errorf("full: %v", err)
	}
	if err := keys.put(more); !errors.Is(err, ErrInvalid) {
		t.Errorf("one too many: %v", err)
	}
	keys.drop(func(*heldImport) bool { return true })
	if err := keys.put(more); err != nil {
		t.Errorf("after the others ended: %v", err)
	}
}
