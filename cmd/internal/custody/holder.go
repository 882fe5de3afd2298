package custody

import (
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// Holder is a custodian's identity with the file in which it lives, and the passphrase to write it again. Whoever opened it calls
// Wipe.
type Holder struct {
	*ceremony.Identity
	path       string
	passphrase []byte
}

// OpenHolder reads an identity file. passphrase is asked only if the file is encrypted.
func OpenHolder(path string, passphrase func() ([]byte, error)) (*Holder, error) {
	h := &Holder{path: path}
	id, err := ceremony.LoadIdentity(path, func() ([]byte, error) {
		phrase, err := passphrase()
		h.passphrase = append([]byte(nil), phrase...)
		return phrase, err
	})
	if err != nil {
		clear(h.passphrase)
		return nil, err
	}
	h.Identity = id
	return h, nil
}

func (h *Holder) save() error {
	if err := h.Save(h.path, h.passphrase); err != nil {
		return fmt.Errorf("custodian %s: %w", h.Name(), err)
	}
	return nil
}

// pin makes the roster the root of trust for its cluster, in the file too.
func (h *Holder) pin(genesis fsm.Roster) error {
	if _, done := h.Pinned(genesis.ClusterID); done {
		return nil // CheckPin compared it
	}
	if err := h.PinRoster(genesis.ClusterID, fsm.RosterHash(genesis)); err != nil {
		return err
	}
	return h.save()
}

// Wipe overwrites what can be overwritten.
func (h *Holder) Wipe() {
	clear(h.passphrase)
	h.Identity.Wipe()
}
