package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// KeyUse is the key-use port, named here so that the composition root can hand a backend over without importing it.
type KeyUse = keyuse.Port

// Key is a working copy as Use lends it.
type Key = keyuse.Key

// Errors of a use.
var (
	// ErrNoLease: this node may not answer now; another one may.
	ErrNoLease = errors.New("this node holds no serving lease")
	// ErrUnavailable: the leader could not be asked whether a negative answer is true.
	ErrUnavailable = errors.New("the leader cannot be asked")
	// ErrNotFound: no such key or version; only for callers who may know.
	ErrNotFound = errors.New("not found")
	// ErrKeyState: the key's state or class forbids the operation.
	ErrKeyState = errors.New("the key's state forbids it")
	// ErrNeedsApproval: allowed only with a quorum.
	ErrNeedsApproval = errors.New("needs approval")
	// ErrWrongKey: the operation does not fit the key's algorithm.
	ErrWrongKey = errors.New("the operation does not fit the key")
)

// Config of a Guard; every field is needed.
type Config struct {
	Keys  keyuse.Port
	Lease func() lease.Lease
	// Available is the longer lease for keys of classes with fsm.LeaseAvailable, WantAvailable asks for one; no such leases if nil.
	Available     func() lease.Lease
	WantAvailable func()
	State         func() *fsm.State
	// Unsealed says whether this node may use its master under a state; hsm.ErrSealed if a seal order overtook it, ErrNoLease if it
	// was ordered to drain, or does not serve.
	Unsealed func(*fsm.State) error
	// CatchUp returns when this node has applied what the leader had committed when it was called.
	CatchUp func(context.Context) error
	// CacheKeys bounds the working copies kept open.
	CacheKeys int
	// Node and Boot are whose blocks of use budgets these are: this node, and its process.
	Node fsm.NodeID
	Boot string
	// Reserve proposes a reservation and returns when this node has applied it. nil: there are no budgets here.
	Reserve func(context.Context, fsm.ReserveUse) error
	// Background runs something soon, false if it cannot. nil: nothing is refilled before it is needed.
	Background func(func(context.Context)) bool
	// Uses is where every use is recorded.
	Uses *usage.Log
	// ClusterID goes into the binding of every wrapped key.
	ClusterID func() string
}

// Guard checks and lends.
type Guard struct {
	cfg       Config
	cache     *cache
	decisions decisions
	ledger    *ledger
	fences    fences
}

// New makes a guard.
func New(cfg Config) *Guard {
	if cfg.Available == nil {
		cfg.Available = func() lease.Lease { return lease.Lease{} }
	}
	if cfg.WantAvailable == nil {
		cfg.WantAvailable = func() {}
	}
	return &Guard{cfg: cfg, cache: newCache(cfg.CacheKeys), decisions: newDecisions(), ledger: newLedger(cfg.Node, cfg.Boot)}
}

// Request says who wants to do what with which key.
type Request struct {
	Caller  policy.Caller
	Op      fsm.Operation
	Name    fsm.KeyName
	Version fsm.Version // 0: the primary version
	Reason  string      // where a class asks for one
	Bytes   uint64      // what the operation is given, for use budgets
}

// Selected is the version that a request was resolved to, and what a caller must be told about it.
type Selected struct {
	Key     fsm.Key
	Version fsm.KeyVersion
	Warning string
	Index   uint64 // of the state that decided

	mode fsm.LeaseMode // of the key's class in that state
}

// Use lends a working copy to use, for one request, between the two checks. What use computed may leave the node only if Use
// returns nil. The returned Selected carries the index of the state that the deciding (second) check saw.
func (g *Guard) Use(ctx context.Context, req Request, use func(context.Context, Key, Selected) error) (Selected, error) {
	var sel Selected
	err := g.settled(ctx, func() (err error) {
		sel, err = g.attempt(ctx, req, func(ctx context.Context, sel Selected) (used, err error) { return g.lend(ctx, sel, use) })
		return err
	})
	return sel, err
}

// Inspect decides about an operation that needs no private key, such as verifying with a public key. Whether the caller may ask,
// and what must be said of the version, are restrictions all the same: without a lease the answer waits for the leader.
func (g *Guard) Inspect(ctx context.Context, req Request) (Selected, error) {
	var sel Selected
	err := g.settled(ctx, func() (err error) {
		l := g.cfg.Lease()
		fenced := g.fences.block(req.Name)
		s := g.cfg.State()
		sel, err = g.decide(s, req)
		if fenced {
			return ErrFenced
		}
		if !s.Serves(g.cfg.Node, g.cfg.Boot) || !l.Valid() { // nobody waits for the lease of one that does not
			return ErrNoLease
		}
		return err
	})
	if errors.Is(err, ErrNoLease) {
		return g.decideCurrent(ctx, req)
	}
	return sel, err
}

// decideCurrent decides from a state that is at least as new as the call.
func (g *Guard) decideCurrent(ctx context.Context, req Request) (Selected, error) {
	if err := g.cfg.CatchUp(ctx); err != nil {
		return Selected{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return g.decide(g.cfg.State(), req)
}

// settled tries once; a negative answer is checked again after catching up with the leader. So is a fence: what it announced is committed.
func (g *Guard) settled(ctx context.Context, try func() error) error {
	err := try()
	if !negative(err) && !errors.Is(err, ErrFenced) {
		return err
	}
	if e := g.cfg.CatchUp(ctx); e != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, e)
	}
	return try()
}

func negative(err error) bool {
	return slices.ContainsFunc([]error{
		ErrNotFound, ErrKeyState, ErrNeedsApproval, ErrWrongKey, policy.ErrDenied, policy.ErrUnauthenticated,
	}, func(target error) bool { return errors.Is(err, target) })
}

// decide is a function of the state alone.
func (g *Guard) decide(s *fsm.State, req Request) (Selected, error) {
	k, found := s.Key(req.Name)
	if err := allowed(s, req, k, found); err != nil {
		return Selected{}, err
	}
	if !found {
		return Selected{}, fmt.Errorf("%w: there is no key %q", ErrNotFound, req.Name)
	}
	if !fits(req.Op, hsm.Algorithm(k.Algorithm).Family()) {
		return Selected{}, fmt.Errorf("%w: %s with a key for %s", ErrWrongKey, req.Op, k.Algorithm)
	}
	v, found := version(k, req.Version)
	if !found {
		return Selected{}, fmt.Errorf("%w: key %q has no version %d", ErrNotFound, req.Name, req.Version)
	}
	class, _ := s.Class(k.Class)
	p := fsm.PermitFor(req.Op, class, &k, v, req.Reason)
	if !p.Allowed {
		return Selected{}, refusal(p, k, v)
	}
	return Selected{Key: k, Version: v, Warning: p.Warning, Index: s.Applied(), mode: leaseMode(s, k.Class)}, nil
}

// allowed asks for the right that an operation needs: who may use a key may not take it away.
func allowed(s *fsm.State, req Request, k fsm.Key, found bool) error {
	if req.Op == fsm.OpExport {
		return policy.Administer(s, req.Caller)
	}
	return policy.Use(s, req.Caller, k, found)
}

func version(k fsm.Key, v fsm.Version) (fsm.KeyVersion, bool) {
	if v == 0 {
		v = k.Primary
	}
	return k.Version(v)
}

func refusal(p fsm.Permission, k fsm.Key, v fsm.KeyVersion) error {
	kind := ErrKeyState
	switch p.Code {
	case fsm.CodeNeedsApproval:
		kind = ErrNeedsApproval
	case fsm.CodeDenied:
		kind = policy.ErrDenied
	}
	return fmt.Errorf("%w: %s version %d: %s", kind, k.Name, v.Version, p.Message)
}

func fits(op fsm.Operation, f hsm.Family) bool {
	switch op {
	case fsm.OpEncrypt, fsm.OpDataKey, fsm.OpRewrap:
		return f == hsm.FamilyCipher
	case fsm.OpExport:
		return true
	case fsm.OpDecrypt:
		return f == hsm.FamilyCipher || f == hsm.FamilyDecrypt
	case fsm.OpEncryptPublic:
		return f == hsm.FamilyDecrypt
	case fsm.OpDerive:
		return f == hsm.FamilyAgree
	case fsm.OpEncapsulate, fsm.OpDecapsulate:
		return f == hsm.FamilyDecapsulate
	case fsm.OpSign, fsm.OpVerify:
		return f == hsm.FamilySign
	case fsm.OpMAC, fsm.OpVerifyMAC:
		return f == hsm.FamilyMAC
	default:
		return false
	}
}

// Wrapped puts a catalog version into the form that tokens take, with its whole binding.
func Wrapped(clusterID string, k fsm.Key, v fsm.KeyVersion) hsm.WrappedKey {
	return hsm.WrappedKey{
		Binding: hsm.Binding{
			ClusterID: clusterID, KeyID: string(k.ID), Version: uint32(v.Version), Algorithm: hsm.Algorithm(k.Algorithm),
			Generation: v.Generation, PublicKey: v.PublicKey, Exportable: v.Exportable,
		},
		Blob: v.Blob, MAC: v.MAC,
	}
}

// Purge drops every working copy: after a seal, and before a master is replaced.
func (g *Guard) Purge() { g.cache.purge(func(id) bool { return true }) }

// Forget drops the working copies that a new state forbids for good.
func (g *Guard) Forget(s *fsm.State) {
	g.cache.purge(func(i id) bool {
		k, found := s.KeyByID(i.key)
		if !found {
			return true
		}
		v, found := k.Version(i.version)
		return !found || v.State >= fsm.StateDestroyScheduled
	})
}
