package guard

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// CanExport reports whether this node's token hands anything out.
func (g *Guard) CanExport() bool {
	_, ok := g.cfg.Keys.(keyuse.Exporter)
	return ok
}

// Export has the token wrap a version's material to a recipient, and releases it between the same two checks as a use. Record is called when the
// wrapped material is there, and must return only when the log has the export: without it nothing leaves, and neither if the second check, on a state
// that has the record, forbids it. Record may be called more than once for one export. The request's operation is fsm.OpExport.
func (g *Guard) Export(ctx context.Context, req Request, to hsm.Recipient, record func(context.Context, Selected) error) ([]byte, Selected, error) {
	exporter, ok := g.cfg.Keys.(keyuse.Exporter)
	if !ok {
		return nil, Selected{}, fmt.Errorf("%w: this node's token hands no material out", hsm.ErrUnsupported)
	}
	req.Op = fsm.OpExport
	var sel Selected
	var wrapped []byte
	err := g.settled(ctx, func() (err error) {
		sel, err = g.attempt(ctx, req, func(ctx context.Context, sel Selected) (used, err error) {
			if wrapped, err = exporter.Export(ctx, Wrapped(g.cfg.ClusterID(), sel.Key, sel.Version), to); err != nil {
				return nil, err
			}
			return record(ctx, sel), nil
		})
		return err
	})
	if err != nil {
		return nil, Selected{}, err
	}
	return wrapped, sel, nil
}
