package guard

import (
	"errors"
	"hash/maphash"
	"math/bits"
	"sync/atomic"

	"github.com/conclave-vault/conclave/fsm"
)

// decisions remembers permissions, never refusals. One holds for as long as the records that it rests on are the same: the caller's
// certificate, the key, its class, and the cluster's id; fsm replaces a record when anything about it changes. It is a table with one place
// for each hash: a collision costs a decision made again, and nothing else.
type decisions struct {
	seed  maphash.Seed
	slots []atomic.Pointer[decision]
}

// decisionSlots take 64 KiB, and a few hundred bytes for each that is used.
const decisionSlots = 1 << 13

type decision struct {
	req         Request
	sel         Selected
	key         *fsm.Key
	class       *fsm.Class
	certificate *fsm.Certificate
	cluster     string
	accounts    accounts
	index       atomic.Uint64 // of the latest state for which it is known to hold
}

// verdict is a permission and the state that gave it. It is small, because every use passes some around.
type verdict struct {
	*decision
	state *fsm.State
}

// selected is what a caller is told.
func (v verdict) selected() Selected {
	sel := v.sel
	sel.Index = v.state.Applied()
	return sel
}

func newDecisions() decisions {
	return decisions{seed: maphash.MakeSeed(), slots: make([]atomic.Pointer[decision], decisionSlots)}
}

// slot of a request. Callers choose key names, so the hash is seeded.
func (d *decisions) slot(req Request) *atomic.Pointer[decision] {
	h := maphash.String(d.seed, string(req.Name)) ^ bits.RotateLeft64(maphash.String(d.seed, req.Caller.Serial), 17)
	return &d.slots[(h^uint64(req.Op)^uint64(req.Version)<<4)%decisionSlots]
}

// holds reports whether the decision is one for this state.
func (d *decision) holds(s *fsm.State) bool {
	if d.accounts.forgotten() {
		return false
	}
	index := s.Applied()
	if d.index.Load() == index {
		return true
	}
	if d.key != s.KeyRecord(d.req.Name) || d.class != s.ClassRecord(d.key.Class) || d.certificate != s.CertificateRecord(d.req.Caller.Serial) || d.cluster != s.ClusterID() {
		return false
	}
	d.index.Store(index)
	return true
}

// refusedMode is the mode of a key whose state forbids a use: under LeaseStrict that is an answer without a lease, too. Who may not
// know the key gets the same answer as for none.
func refusedMode(s *fsm.State, req Request, err error) fsm.LeaseMode {
	if errors.Is(err, ErrKeyState) || errors.Is(err, ErrNeedsApproval) {
		return leaseMode(s, s.KeyRecord(req.Name).Class)
	}
	return fsm.LeaseLeased
}

// decided is decide, remembered. Without an error there is a decision.
func (g *Guard) decided(s *fsm.State, req Request) (verdict, fsm.LeaseMode, error) {
	req.Bytes = 0 // nothing about a permission
	slot := g.decisions.slot(req)
	if d := slot.Load(); d != nil && d.req == req && d.holds(s) {
		return verdict{d, s}, d.sel.mode, nil
	}
	sel, err := g.decide(s, req)
	if err != nil {
		return verdict{}, refusedMode(s, req, err), err
	}
	d := &decision{
		req: req, sel: sel, key: s.KeyRecord(req.Name), class: s.ClassRecord(sel.Key.Class),
		certificate: s.CertificateRecord(req.Caller.Serial), cluster: s.ClusterID(), accounts: g.ledger.of(s, req.Op, sel),
	}
	d.index.Store(s.Applied())
	if req.Reason == "" { // a reason is written once and would only fill the table
		slot.Store(d)
	}
	return verdict{d, s}, sel.mode, nil
}
