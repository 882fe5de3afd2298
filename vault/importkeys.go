package vault

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

const (
	// importKeyLife is how long an import key waits for its material: enough to carry a file to the machine that has it, and to the
	// officer who brings it.
	importKeyLife = time.Hour
	// maxImportKeys bounds those that wait in one token: each costs memory there and seconds of a processor.
	maxImportKeys = 16
)

// ImportKey is what a client wraps material to. Its private half is in the token of Node only, for one import of Name with Algorithm.
type ImportKey struct {
	ID        string // NODE/UUID
	Node      fsm.NodeID
	Name      fsm.KeyName
	Algorithm hsm.Algorithm
	Form      hsm.Form // of wrapping
	PublicKey []byte   // DER SubjectPublicKeyInfo
	ExpiresAt time.Time
	Index     uint64 // of this node's state when it was made
}

// importKeys are those of this node: in memory only, so a restart or a seal order ends them.
type importKeys struct {
	mu   sync.Mutex
	held map[string]*heldImport
}

// heldImport is one, before its import and after it: the outcome stays until it expires, so that a client who lost the answer gets it by
// the same request.
type heldImport struct {
	ImportKey
	owner    fsm.Actor
	key      hsm.ImportKey
	deadline time.Time // by the monotonic clock: the wall clock may be set back

	mu      sync.Mutex // one import at a time
	request fsm.RequestID
	asked   [sha256.Size]byte // what that request was for
	outcome *imported
}

func (k *importKeys) full() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.roomLocked()
}

func (k *importKeys) roomLocked() error {
	if len(k.held) >= maxImportKeys {
		return fmt.Errorf("%w: this node holds %d import keys, which is its limit; use them, or wait until they expire (%s after they were made), or ask another node",
			ErrInvalid, maxImportKeys, importKeyLife)
	}
	return nil
}

func (k *importKeys) put(h *heldImport) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.roomLocked(); err != nil {
		return err
	}
	if k.held == nil {
		k.held = map[string]*heldImport{}
	}
	k.held[h.ID] = h
	return nil
}

// find gives the import key of a query to whom it was made for, and for what.
func (k *importKeys) find(q importQuery, now time.Time) (*heldImport, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, found := k.held[q.ImportKey]
	switch {
	case !found || !now.Before(h.deadline) || h.owner != q.Caller.Actor():
		return nil, fmt.Errorf("%w: this node has no import key %.100q of yours: they serve once, for %s, and end with a seal or a restart; make another with: conclave key import-key create",
			guard.ErrNotFound, q.ImportKey, importKeyLife)
	case h.Name != q.Name || h.Algorithm != q.Algorithm:
		return nil, fmt.Errorf("%w: the import key was made for %s with %s, and serves nothing else", ErrInvalid, h.Name, h.Algorithm)
	}
	return h, nil
}

// drop destroys those that are to go.
func (k *importKeys) drop(gone func(*heldImport) bool) {
	k.mu.Lock()
	var dropped []*heldImport
	for id, h := range k.held {
		if gone(h) {
			delete(k.held, id)
			dropped = append(dropped, h)
		}
	}
	k.mu.Unlock()
	for _, h := range dropped {
		h.key.Destroy()
	}
}

// forgetImportKeys destroys what expired, and on a sealed node everything.
func (v *Vault) forgetImportKeys() {
	sealed, now := v.unsealedAt.Load() == 0, time.Now()
	v.imports.drop(func(h *heldImport) bool { return sealed || !now.Before(h.deadline) })
}
