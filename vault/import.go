package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// CreateImportKey makes a one-time import key in this node's HSM, for a key that is to be called name. The answer's public key is what the
// client wraps the material to, in the form. hsm.ErrUnsupported, with node and mechanism, where the HSM cannot; hsm.ErrSealed.
func (v *Vault) CreateImportKey(ctx context.Context, c policy.Caller, name fsm.KeyName, alg hsm.Algorithm, form hsm.Form) (ImportKey, error) {
	if err := v.mayCreate(ctx, c, NewKey{Name: name, Algorithm: alg}); err != nil {
		return ImportKey{}, err
	}
	if _, taken := v.state().Key(name); taken {
		return ImportKey{}, &Refused{fsm.CodeExists, fmt.Sprintf("key %s exists or existed: names are never reused", name)}
	}
	if err := v.imports.full(); err != nil {
		return ImportKey{}, err
	}
	key, err := v.newImportKey(ctx, form)
	if err != nil {
		return ImportKey{}, fmt.Errorf("making an import key on node %s (%s): %w", v.cfg.Node, v.device.HSM, err)
	}
	h := &heldImport{
		ImportKey: ImportKey{
			ID: string(v.cfg.Node) + "/" + uuid.NewString(), Node: v.cfg.Node, Name: name, Algorithm: alg, Form: form, PublicKey: key.PublicKey(),
			ExpiresAt: v.cfg.Now().Add(importKeyLife).UTC(), Index: v.Applied(),
		},
		owner: c.Actor(), key: key, deadline: time.Now().Add(importKeyLife),
	}
	if err := v.imports.put(h); err != nil {
		key.Destroy()
		return ImportKey{}, err
	}
	return h.ImportKey, nil
}

func (v *Vault) newImportKey(ctx context.Context, form hsm.Form) (hsm.ImportKey, error) {
	token, ok := v.cfg.Token.(hsm.Importer)
	if !ok {
		return nil, hsm.NoImport(v.cfg.Token)
	}
	return token.NewImportKey(ctx, form)
}

// importQuery asks the node that holds an import key for the material of the key's first version.
type importQuery struct {
	Caller    policy.Caller `json:"caller"`
	RequestID fsm.RequestID `json:"request_id"`
	ImportKey string        `json:"import_key"`
	Name      fsm.KeyName   `json:"name"`
	Algorithm hsm.Algorithm `json:"algorithm"`
	Wrapped   []byte        `json:"wrapped"`
	// Exportable is what the key is to be; a node of an older release does not read it.
	Exportable bool `json:"exportable,omitempty"`
}

// digest is of what the holder makes the material of.
func (q importQuery) digest() [sha256.Size]byte {
	return requestHash("import", strconv.FormatBool(q.Exportable), string(q.Wrapped))
}

// imported is the answer: under the master, and of use only as version 1 of the key with this id.
type imported struct {
	ID       fsm.KeyID    `json:"id"`
	Material fsm.Material `json:"material"`
}

// ImportKey makes the key n of material wrapped to an import key, which any node may be given: the one that holds it unwraps and checks. The
// import key is spent by that, whatever comes of it; the same request id repeats the first outcome.
func (v *Vault) ImportKey(ctx context.Context, c policy.Caller, id fsm.RequestID, n NewKey, importKey string, wrapped []byte) (fsm.Key, uint64, error) {
	n.Labels = sorted(n.Labels)
	if id == "" {
		return fsm.Key{}, 0, fmt.Errorf("%w: a write needs a request id (UUIDv7)", ErrInvalid) // before the import key is spent
	}
	if err := v.mayCreate(ctx, c, n); err != nil {
		return fsm.Key{}, 0, err
	}
	if len(wrapped) == 0 || len(wrapped) > hsm.MaxImport {
		return fsm.Key{}, 0, fmt.Errorf("%w: %d bytes of wrapped material, from 1 to %d are", ErrInvalid, len(wrapped), hsm.MaxImport)
	}
	made, err := v.askHolder(ctx, importQuery{
		Caller: c, RequestID: id, ImportKey: importKey, Name: n.Name, Algorithm: n.Algorithm, Wrapped: wrapped, Exportable: n.Exportable,
	})
	if err != nil {
		return fsm.Key{}, 0, err
	}
	if made.Material.Exportable != n.Exportable {
		return fsm.Key{}, 0, fmt.Errorf("%w: the node with the import key %s makes no exportable material: upgrade it, or take an import key of another node", hsm.ErrUnsupported, importKey)
	}
	digest := sha256.Sum256(wrapped)
	hash := requestHash("keys.import", append(n.fields(), importKey, hex.EncodeToString(digest[:]))...)
	r, err := v.write(ctx, c, id, hash, fsm.ImportKey{Key: n.command(made.ID, made.Material), ImportKey: importKey})
	if err != nil {
		return fsm.Key{}, 0, err
	}
	return v.written(n.Name, r)
}

// askHolder finds the node in the import key's id.
func (v *Vault) askHolder(ctx context.Context, q importQuery) (imported, error) {
	name, _, _ := strings.Cut(q.ImportKey, "/")
	node := fsm.NodeID(name)
	if node == v.cfg.Node {
		return v.importHere(ctx, q)
	}
	if _, member := v.state().Node(node); !member {
		return imported{}, fmt.Errorf("%w: the import key %.100q names no node of this cluster; conclave key import-key create makes one", ErrInvalid, q.ImportKey)
	}
	made, err := askNode[imported](ctx, v, node, kindImport, q)
	if err != nil {
		return imported{}, fmt.Errorf("node %s, which holds the import key: %w", node, err)
	}
	return made, nil
}

// importHere is the holder's side. It authorises again: its state may know of a revocation that the other node's does not.
func (v *Vault) importHere(ctx context.Context, q importQuery) (imported, error) {
	s := v.state()
	if err := policy.Administer(s, q.Caller); err != nil {
		return imported{}, err
	}
	if err := v.mayUse(s); err != nil {
		return imported{}, err
	}
	h, err := v.imports.find(q, time.Now())
	if err != nil {
		return imported{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.request == "" {
		return v.spend(ctx, h, q)
	}
	if h.request == q.RequestID && h.asked == q.digest() && h.outcome != nil {
		return *h.outcome, nil
	}
	return imported{}, fmt.Errorf("%w: the import key was used by another request: it serves once; make another with: conclave key import-key create", ErrInvalid)
}

// spend makes the one attempt; the lock of h is held. What comes out has been outside, so it does not count as made in hardware, whatever the
// token is: classes for hardware only refuse it.
func (v *Vault) spend(ctx context.Context, h *heldImport, q importQuery) (imported, error) {
	h.request, h.asked = q.RequestID, q.digest()
	id := newKeyID()
	w, err := h.key.Import(ctx, hsm.Binding{ClusterID: v.clusterID(), KeyID: string(id), Version: 1, Algorithm: h.Algorithm, Exportable: q.Exportable}, q.Wrapped)
	h.key.Destroy()
	if err != nil {
		return imported{}, fmt.Errorf("importing on node %s (%s): %w; the import key is spent: make another with: conclave key import-key create", v.cfg.Node, v.device.HSM, err)
	}
	h.outcome = &imported{ID: id, Material: fsm.Material{
		Generation: w.Binding.Generation, Exportable: w.Binding.Exportable, PublicKey: w.Binding.PublicKey, Blob: w.Blob, MAC: w.MAC,
	}}
	return *h.outcome, nil
}
