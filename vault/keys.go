package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// maxRotateTries bounds how often a rotation that lost a race for its version number is tried again.
const maxRotateTries = 16

// NewKey is what a caller asks for.
type NewKey struct {
	Name      fsm.KeyName
	Algorithm hsm.Algorithm
	Class     string // empty: standard
	Labels    []fsm.Label
	// ActivateAt and DeactivateAt are planned dates; zero: active at once, and as long as the class says.
	ActivateAt   time.Time
	DeactivateAt time.Time
	Description  string
	Purpose      string
	Links        []fsm.Link
	// Exportable material can be handed out, wrapped to somebody's key, where its class permits; that is decided here, and not later.
	Exportable bool
}

func (n NewKey) command(id fsm.KeyID, m fsm.Material) fsm.CreateKey {
	return fsm.CreateKey{
		ID: id, Name: n.Name, Algorithm: string(n.Algorithm), Class: n.Class, Labels: n.Labels, Material: m,
		ActivateAt: n.ActivateAt, DeactivateAt: n.DeactivateAt, Description: n.Description, Purpose: n.Purpose, Links: n.Links,
	}
}

func (n NewKey) hash() [32]byte { return requestHash("keys.create", n.fields()...) }

// fields are those of the canonical request.
func (n NewKey) fields() []string {
	fields := []string{string(n.Name), string(n.Algorithm), n.Class}
	for _, l := range n.Labels {
		fields = append(fields, l.Name, l.Value)
	}
	more := []string{date(n.ActivateAt), date(n.DeactivateAt), n.Description, n.Purpose}
	for _, l := range n.Links {
		more = append(more, string(l.Kind), l.Target)
	}
	if slices.ContainsFunc(more, func(s string) bool { return s != "" }) { // without them the hash is what older nodes compute
		fields = append(append(fields, "with"), more...)
	}
	if n.Exportable {
		fields = append(fields, "exportable")
	}
	return fields
}

// date is a time in a canonical request; empty for none.
func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// newKeyID is a UUIDv7 (RFC 9562): ids that rise with time are neighbours in the catalog's index of them, which saves a third of what a creation
// costs among a million keys. When a key was made is no secret.
func newKeyID() fsm.KeyID {
	return fsm.KeyID(uuid.Must(uuid.NewV7()).String()) // fails only if the system has no randomness, and crypto/rand ends the process before
}

// CreateKey generates a key in this node's HSM, wrapped under the master, and returns it once it is committed.
func (v *Vault) CreateKey(ctx context.Context, c policy.Caller, id fsm.RequestID, n NewKey) (fsm.Key, uint64, error) {
	n.Labels = sorted(n.Labels)
	if err := v.mayCreate(ctx, c, n); err != nil {
		return fsm.Key{}, 0, err
	}
	keyID := newKeyID()
	m, err := v.generate(ctx, hsm.Binding{KeyID: string(keyID), Version: 1, Algorithm: n.Algorithm}, n.Exportable)
	if err != nil {
		return fsm.Key{}, 0, err
	}
	r, err := v.write(ctx, c, id, n.hash(), n.command(keyID, m))
	if err != nil {
		return fsm.Key{}, 0, err
	}
	return v.written(n.Name, r)
}

func sorted(labels []fsm.Label) []fsm.Label {
	return slices.SortedFunc(slices.Values(labels), func(a, b fsm.Label) int { return compare(a.Name, b.Name) })
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// mayCreate refuses early what the state machine would refuse later, before the HSM works for a stranger.
func (v *Vault) mayCreate(ctx context.Context, c policy.Caller, n NewKey) error {
	if err := v.administer(ctx, c); err != nil {
		return err
	}
	if err := fsm.ValidKeyName(string(n.Name)); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !n.Algorithm.Known() {
		return fmt.Errorf("%w: unknown algorithm %q; known are %v", ErrInvalid, n.Algorithm, hsm.Algorithms())
	}
	return v.mayUse(v.state())
}

// leased asks this node's own state, whose word counts only under a lease: without one a revocation may have passed it by.
func (v *Vault) leased(ok func(*fsm.State) bool) bool {
	l := v.cfg.Lease() // first
	s := v.state()
	return ok(s) && v.serves(s) && l.Valid() // last: reads the clock
}

// administer authorises from this node's state under its lease, else from the leader's present one.
func (v *Vault) administer(ctx context.Context, c policy.Caller) error {
	if v.leased(func(s *fsm.State) bool { return policy.Administer(s, c) == nil }) {
		return nil
	}
	s, err := v.current(ctx)
	if err != nil {
		return err
	}
	return policy.Administer(s, c)
}

// nextMaterial makes material for the next version of a key, exportable as long as the key is.
func (v *Vault) nextMaterial(ctx context.Context, s *fsm.State, k fsm.Key) (fsm.Version, fsm.Material, error) {
	next := k.Versions[len(k.Versions)-1].Version + 1
	m, err := v.generate(ctx, hsm.Binding{KeyID: string(k.ID), Version: uint32(next), Algorithm: hsm.Algorithm(k.Algorithm)}, s.Exports(&k))
	return next, m, err
}

// generate makes material in this node's token; b names key, version and algorithm.
func (v *Vault) generate(ctx context.Context, b hsm.Binding, exportable bool) (fsm.Material, error) {
	b.ClusterID = v.clusterID()
	w, err := v.cfg.Token.Generate(ctx, b, exportable)
	if err != nil {
		return fsm.Material{}, fmt.Errorf("generating %s on node %s (%s): %w", b.Algorithm, v.cfg.Node, v.device.HSM, err)
	}
	return fsm.Material{
		Generation: w.Binding.Generation, Exportable: w.Binding.Exportable, HardwareSafe: v.cfg.Token.Info().HardwareSafe,
		PublicKey: w.Binding.PublicKey, Blob: w.Blob, MAC: w.MAC,
	}, nil
}

// written returns a key as this node's state has it after a write, with that state's index: whoever demands it elsewhere sees no
// less of the key than this answer shows.
func (v *Vault) written(name fsm.KeyName, r fsm.Result) (fsm.Key, uint64, error) {
	s := v.state()
	k, found := s.Key(name)
	if !found {
		return fsm.Key{}, 0, fmt.Errorf("key %q was written at index %d and is not in the state: this is a defect", name, r.Index)
	}
	return k, s.Applied(), nil
}

// RotateKey adds a version made in this node's HSM and makes it primary: at once, or on the date activateAt.
func (v *Vault) RotateKey(ctx context.Context, c policy.Caller, id fsm.RequestID, name fsm.KeyName, activateAt time.Time) (fsm.Key, uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return fsm.Key{}, 0, err
	}
	var err error
	for range maxRotateTries {
		var r fsm.Result
		r, err = v.rotateOnce(ctx, c, id, name, activateAt)
		if err == nil {
			return v.written(name, r)
		}
		var lost *Refused
		if !errors.As(err, &lost) || lost.Code != fsm.CodeVersionConflict {
			return fsm.Key{}, 0, err
		}
	}
	return fsm.Key{}, 0, err
}

func (v *Vault) rotateOnce(ctx context.Context, c policy.Caller, id fsm.RequestID, name fsm.KeyName, activateAt time.Time) (fsm.Result, error) {
	s, err := v.current(ctx)
	if err != nil {
		return fsm.Result{}, err
	}
	k, found := s.Key(name)
	if !found {
		return fsm.Result{}, fmt.Errorf("%w: there is no key %q", guard.ErrNotFound, name)
	}
	if err := v.mayUse(s); err != nil {
		return fsm.Result{}, err
	}
	next, m, err := v.nextMaterial(ctx, s, k)
	if err != nil {
		return fsm.Result{}, err
	}
	fields := []string{string(name)}
	if !activateAt.IsZero() {
		fields = append(fields, date(activateAt))
	}
	return v.write(ctx, c, id, requestHash("keys.rotate", fields...), fsm.RotateKey{Name: name, ID: k.ID, Version: next, Material: m, ActivateAt: activateAt})
}

// Change is a change of state that a caller orders.
type Change struct {
	Name       fsm.KeyName
	Version    fsm.Version // 0: every version it fits
	Action     fsm.KeyAction
	Reason     string
	OccurredAt time.Time
	After      time.Duration
}

func (ch Change) hash() [32]byte {
	return requestHash("keys.change", string(ch.Name), fmt.Sprint(ch.Version), string(ch.Action), ch.Reason, date(ch.OccurredAt), ch.After.String())
}

// ChangeKey orders a change of state. A restriction is answered when no node can act against it any more; *PendingError if the
// deadline ends before.
func (v *Vault) ChangeKey(ctx context.Context, c policy.Caller, id fsm.RequestID, ch Change) (fsm.Key, uint64, error) {
	return v.writeKey(ctx, c, id, ch.hash(), ch.Name, fsm.ChangeKey{
		Name: ch.Name, Version: ch.Version, Action: ch.Action, Reason: ch.Reason, OccurredAt: ch.OccurredAt, After: ch.After,
	})
}

// Key returns a catalog entry.
func (v *Vault) Key(ctx context.Context, c policy.Caller, name fsm.KeyName) (fsm.Key, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return fsm.Key{}, 0, err
	}
	k, found := s.Key(name)
	if err := policy.Use(s, c, k, found); err != nil {
		return fsm.Key{}, 0, err
	}
	if !found {
		return fsm.Key{}, 0, fmt.Errorf("%w: there is no key %q", guard.ErrNotFound, name)
	}
	return k, s.Applied(), nil
}

// Page sizes of every list.
const (
	defaultPage = 100
	maxPage     = 1000
)

func pageSize(n int) (int, error) {
	switch {
	case n == 0:
		return defaultPage, nil
	case n < 0 || n > maxPage:
		return 0, fmt.Errorf("%w: a page of %d; use 1 to %d", ErrInvalid, n, maxPage)
	}
	return n, nil
}
