package vault

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// Limits of one answer with uses.
const (
	defaultUses = 100
	maxUses     = 1000
)

// UseFilter says which single uses are wanted.
type UseFilter struct {
	Node  fsm.NodeID  // whose usage log; empty: this node's
	Key   fsm.KeyName // empty: of every key
	Since time.Time
}

// UsePage is a page of one node's usage log. Next is empty on the last one.
type UsePage struct {
	Node  fsm.NodeID
	Uses  []usage.Entry
	Next  string
	Index uint64
}

// ListUses returns single uses of keys from a node's usage log, the oldest first.
func (v *Vault) ListUses(ctx context.Context, c policy.Caller, f UseFilter, token string, limit int) (UsePage, error) {
	if err := v.administer(ctx, c); err != nil {
		return UsePage{}, err
	}
	q, err := v.usesQuery(f, token, limit)
	if err != nil {
		return UsePage{}, err
	}
	if f.Node == "" {
		f.Node = v.cfg.Node
	}
	s := v.state()
	if _, found := s.Node(f.Node); !found {
		return UsePage{}, fmt.Errorf("%w: there is no node %q", guard.ErrNotFound, f.Node)
	}
	p, err := askNode[usage.Page](ctx, v, f.Node, kindUses, q)
	out := UsePage{Node: f.Node, Uses: p.Entries, Index: s.Applied()}
	if !p.Done {
		out.Next = strconv.FormatUint(p.Next, 10)
	}
	return out, err
}

func (v *Vault) usesQuery(f UseFilter, token string, limit int) (usage.Query, error) {
	q := usage.Query{Limit: limit, Since: f.Since}
	if token != "" {
		from, err := strconv.ParseUint(token, 10, 64)
		if err != nil {
			return q, fmt.Errorf("%w: the page token %.40q", ErrInvalid, token)
		}
		q.From = from
	}
	if f.Key != "" {
		k, found := v.state().Key(f.Key)
		if !found {
			return q, fmt.Errorf("%w: there is no key %q", guard.ErrNotFound, f.Key)
		}
		q.KeyID = string(k.ID)
	}
	return q, nil
}

// localUses reads this node's own usage log.
func (v *Vault) localUses(q usage.Query) (usage.Page, error) {
	switch {
	case q.Limit < 0 || q.Limit > maxUses:
		return usage.Page{}, fmt.Errorf("%w: %d uses, at most %d", ErrInvalid, q.Limit, maxUses)
	case q.Limit == 0:
		q.Limit = defaultUses
	}
	return v.cfg.Usage.Read(q)
}

// KeyNameOf is the name of a key that is or was.
func (v *Vault) KeyNameOf(id string) fsm.KeyName {
	k, _ := v.state().KeyByID(fsm.KeyID(id))
	return k.Name
}
