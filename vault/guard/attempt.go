package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/cluster/lease"
)

// maxCharges bounds how often one operation is charged anew: others may take what was reserved for it, or a limit be changed under it.
const maxCharges = 64

// attempt is one use: checked, charged, done by do, recorded, and checked again. Do tells what kept it from beginning (err) from what came of it (used).
func (g *Guard) attempt(ctx context.Context, req Request, do func(context.Context, Selected) (used, err error)) (Selected, error) {
	for range maxCharges {
		first, c, err := g.admit(ctx, req)
		if err != nil {
			return Selected{}, err
		}
		used, err := do(ctx, first.selected())
		if err != nil || isDead(used) {
			c.refund() // the HSM did nothing
		}
		if err != nil {
			return Selected{}, err
		}
		// The result was made with this version, whatever is primary by now. "Does not verify" is a result too, and leaves only under the
		// same condition as a signature.
		again := req
		again.Version = first.sel.Version.Version
		second, err := g.release(ctx, again, first, c, used)
		switch {
		case err == nil:
			return second.selected(), used
		case !errors.Is(err, errVoid):
			return Selected{}, err
		}
	}
	return Selected{}, fmt.Errorf("%w: the key's use budget changes all the time", ErrUnavailable)
}

// admit checks and charges. Where the node has too little in hand it gets more and checks again, because that takes time.
func (g *Guard) admit(ctx context.Context, req Request) (verdict, charge, error) {
	for range maxCharges {
		v, err := g.check(req, lease.Lease.Valid)
		if err != nil {
			return v, charge{}, err
		}
		c, short := g.charge(v, req.Bytes)
		if short == nil {
			return v, c, nil
		}
		need := c.amount
		if short.id.version != 0 {
			need = oneOperation
		}
		if err := g.fund(ctx, short, need); err != nil {
			return v, charge{}, err
		}
	}
	return verdict{}, charge{}, fmt.Errorf("%w: others use up what is reserved of the key's use budget", ErrUnavailable)
}
