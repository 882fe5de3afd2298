package guard

import (
	"context"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// Check and CheckAgain are the two checks without what lies between them.
func (g *Guard) Check(req Request) (Verdict, error) { return g.check(req, lease.Lease.Valid) }

func (g *Guard) CheckAgain(ctx context.Context, req Request, first Verdict) (Verdict, error) {
	return g.checkAgain(ctx, req, first)
}

// Release is all that follows the HSM call.
func (g *Guard) Release(ctx context.Context, req Request, first Verdict) (Verdict, error) {
	return g.release(ctx, req, first, charge{}, nil)
}

// Verdict is what they return.
type Verdict = verdict

// Index of the state that decided.
func (v verdict) Index() uint64 { return v.state.Applied() }

// Admit is the first check with the charge.
func (g *Guard) Admit(ctx context.Context, req Request) error {
	_, _, err := g.admit(ctx, req)
	return err
}
