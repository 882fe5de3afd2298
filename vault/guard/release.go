package guard

import (
	"context"
	"errors"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/usage"
)

// errVoid: what an operation was charged is not what it has to be charged any more.
var errVoid = errors.New("the block that it was charged to is void")

// release records a use, and decides last of all whether its result leaves. Nothing that can wait comes after the decision: where the
// class demands that the record is on the disk first, that is before it, and a result that is then held back has its record withheld by
// another one. Everywhere else the decision comes first and the record into the buffer, which takes no time; if it did, because the
// buffer was full, the decision is old and is taken again.
func (g *Guard) release(ctx context.Context, req Request, first verdict, c charge, used error) (verdict, error) {
	e := g.entry(ctx, req, first, used)
	if e.Outcome == 0 { // nothing but an error leaves
		return g.decideLast(ctx, req, first, c)
	}
	durable := first.durable()
	for {
		if durable {
			if err := g.cfg.Uses.Settle(ctx, &e); err != nil {
				return verdict{}, g.withhold(ctx, &e, err)
			}
		}
		v, err := g.decideLast(ctx, req, first, c)
		if err != nil {
			return verdict{}, g.withhold(ctx, &e, err)
		}
		if v.durable() && !durable { // the class was raised meanwhile
			durable = true
			continue
		}
		if e.Sequence != 0 {
			return v, nil
		}
		e.Index = v.state.Applied()
		waited, err := g.cfg.Uses.Append(ctx, &e)
		if err != nil {
			return verdict{}, g.withhold(ctx, &e, err)
		}
		if !waited {
			return v, nil
		}
	}
}

// decideLast is the deciding check, and whether what was charged still covers the use.
func (g *Guard) decideLast(ctx context.Context, req Request, first verdict, c charge) (verdict, error) {
	v, err := g.checkAgain(ctx, req, first)
	if err == nil && !g.covers(c, v) {
		err = errVoid
	}
	return v, err
}

// entry is the record of a use, stamped before the deciding check. Its outcome is 0 if the HSM did nothing with the key.
func (g *Guard) entry(ctx context.Context, req Request, first verdict, used error) usage.Entry {
	e := usage.Entry{
		Time: g.cfg.Uses.Now(), Index: first.state.Applied(), KeyID: string(first.sel.Key.ID), Version: uint32(first.sel.Version.Version),
		Operation: req.Op.String(), Role: string(req.Caller.Role), Name: req.Caller.Name, Serial: req.Caller.Serial,
		RequestID: usage.RequestOf(ctx), Bytes: req.Bytes,
	}
	switch {
	case used == nil:
		e.Outcome = usage.Done
	case errors.Is(used, hsm.ErrVerify): // an answer, too
		e.Outcome = usage.NotVerified
	}
	return e
}

// withhold records that a result was held back. Nobody waits for it to be durable: what is lost with it makes a record say more than was
// given, never less. The caller may have left; the record is wanted all the same.
func (g *Guard) withhold(ctx context.Context, e *usage.Entry, why error) error {
	w := *e
	w.Outcome, w.Of, w.Sequence = usage.Withheld, e.Sequence, 0
	if _, err := g.cfg.Uses.Append(context.WithoutCancel(ctx), &w); err != nil && !errors.Is(why, err) {
		return errors.Join(why, err)
	}
	return why
}

// durable says that the record of a use must be on the disk before its result leaves; also of a class that is not known.
func (v verdict) durable() bool { return v.class == nil || v.class.UsageLog != fsm.UsageBuffered }
