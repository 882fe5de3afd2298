package guard

import (
	"context"
	"errors"

	"github.com/conclave-vault/conclave/hsm"
)

// lend runs use with a working copy, cached or unwrapped for it. Err is that of opening, used that of use.
//
// A copy that turns out to be dead, because the device dropped it or because it is of an earlier master session, is replaced by
// another, once and never more: use has then done nothing, and a device that drops every copy does not work.
func (g *Guard) lend(ctx context.Context, sel Selected, use func(context.Context, Key, Selected) error) (used, err error) {
	used, err = g.lendOnce(ctx, sel, use)
	if isDead(used) {
		used, err = g.lendOnce(ctx, sel, use)
	}
	return used, err
}

func (g *Guard) lendOnce(ctx context.Context, sel Selected, use func(context.Context, Key, Selected) error) (used, err error) {
	key, release, err := g.open(ctx, sel)
	if err != nil {
		return nil, err
	}
	defer release()
	used = use(ctx, key, sel)
	if isDead(used) {
		g.cache.discard(cacheID(sel), key)
	}
	return used, nil
}

// isDead reports that a copy did nothing and never will.
func isDead(used error) bool { return errors.Is(used, hsm.ErrHandle) || errors.Is(used, hsm.ErrSealed) }

// open lends a cached working copy, unwrapping it if there is none.
func (g *Guard) open(ctx context.Context, sel Selected) (Key, func(), error) {
	return g.cache.get(ctx, cacheID(sel), func(ctx context.Context) (Key, error) {
		return g.cfg.Keys.Open(ctx, Wrapped(g.cfg.ClusterID(), sel.Key, sel.Version))
	})
}
