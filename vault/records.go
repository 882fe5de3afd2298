package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Limits of one answer with records.
const (
	defaultRecords = 1000
	maxRecords     = 10_000
	maxRecordBytes = 2 << 20
)

type recordsQuery struct {
	From  uint64 `json:"from"`
	Limit int    `json:"limit"`
}

// Record is a stored leaf.
type Record struct {
	Leaf uint64 `json:"leaf"`
	Data []byte `json:"data"`
	Hash []byte `json:"hash"`
}

// Records is a run of stored leaves, and where the disk fails to give the next one.
type Records struct {
	Records []Record `json:"records"`
	Damage  *Damage  `json:"damage,omitempty"`
}

// Damage is a leaf that a node's disk cannot give back.
type Damage struct {
	Leaf   uint64 `json:"leaf"`
	Reason string `json:"reason"`
}

func (v *Vault) localRecords(q recordsQuery) (Records, error) {
	if q.Limit < 0 || q.Limit > maxRecords {
		return Records{}, fmt.Errorf("%w: %d records, at most %d", ErrInvalid, q.Limit, maxRecords)
	}
	if q.Limit == 0 {
		q.Limit = defaultRecords
	}
	recs, err := v.cfg.Journal.Read(q.From, q.Limit, maxRecordBytes)
	var d *journal.Damage
	if errors.As(err, &d) {
		v.noticeDamage(d.Number)
		return Records{Damage: &Damage{Leaf: d.Number, Reason: d.Reason}}, nil
	}
	if err != nil {
		return Records{}, err
	}
	out := Records{Records: make([]Record, len(recs))}
	for i, r := range recs {
		if !r.Verifies() {
			v.noticeDamage(r.Leaf) // and shown as it is: whoever verifies wants to see it
		}
		out.Records[i] = Record{Leaf: r.Leaf, Data: r.Data, Hash: r.Hash[:]}
	}
	return out, nil
}

// ReadRecords returns leaves as the named node's own disk holds them.
func (v *Vault) ReadRecords(ctx context.Context, c policy.Caller, node fsm.NodeID, from uint64, limit int) (Records, error) {
	if err := v.administer(ctx, c); err != nil {
		return Records{}, err
	}
	if node == "" {
		node = v.cfg.Node
	}
	if _, found := v.state().Node(node); !found {
		return Records{}, fmt.Errorf("%w: there is no node %q", guard.ErrNotFound, node)
	}
	return askNode[Records](ctx, v, node, kindRecords, recordsQuery{From: from, Limit: limit})
}

// Head is the tree as one node's state has it.
type Head struct {
	Node  fsm.NodeID `json:"node"`
	Size  uint64     `json:"size"`
	Root  []byte     `json:"root"`
	Index uint64     `json:"index"`
	Error string     `json:"error,omitempty"`
}

func (v *Vault) localHead() Head {
	s := v.state()
	t := s.Tree()
	return Head{Node: v.cfg.Node, Size: t.Size, Root: t.Root[:], Index: s.Applied()}
}

// Heads asks every node for its tree.
func (v *Vault) Heads(ctx context.Context, c policy.Caller) ([]Head, error) {
	if err := v.administer(ctx, c); err != nil {
		return nil, err
	}
	return everyNode(ctx, v, v.state(), func(ctx context.Context, n fsm.Node) Head {
		h, err := askNode[Head](ctx, v, n.ID, kindHead, struct{}{})
		if err != nil {
			h = Head{Node: n.ID, Error: err.Error()}
		}
		return h
	}), nil
}

// EventPage is a page of decoded events. Next is the leaf to go on with; empty on the last page.
type EventPage struct {
	Events []fsm.Event
	Next   string
	Index  uint64
}

// Events lists the lifecycle log, or of one subject, from this node's journal, oldest first.
func (v *Vault) Events(ctx context.Context, c policy.Caller, subject, token string, size int) (EventPage, error) {
	s, err := v.current(ctx)
	if err != nil {
		return EventPage{}, err
	}
	if err := policy.Administer(s, c); err != nil {
		return EventPage{}, err
	}
	if subject == "" {
		return v.events(ctx, s, token, size)
	}
	return v.eventsOf(ctx, s, subject, token, size)
}

// History lists the events of one key, for whoever may use it.
func (v *Vault) History(ctx context.Context, c policy.Caller, name fsm.KeyName, token string, size int) (EventPage, error) {
	k, _, err := v.Key(ctx, c, name)
	if err != nil {
		return EventPage{}, err
	}
	return v.eventsOf(ctx, v.state(), keySubject(k.Name), token, size)
}

func keySubject(name fsm.KeyName) string { return "key/" + string(name) }

// pageStart takes a page's arguments apart.
func pageStart(token string, size int) (leaf uint64, n int, err error) {
	if n, err = pageSize(size); err != nil || token == "" {
		return 0, n, err
	}
	if leaf, err = strconv.ParseUint(token, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("%w: page token %q", ErrInvalid, token)
	}
	return leaf, n, nil
}

// events lists the log as it comes.
func (v *Vault) events(ctx context.Context, s *fsm.State, token string, size int) (EventPage, error) {
	leaf, size, err := pageStart(token, size)
	if err != nil {
		return EventPage{}, err
	}
	page := EventPage{Index: s.Applied()}
	for total := s.Tree().Size; leaf < total; {
		if err := ctx.Err(); err != nil {
			return page, err
		}
		recs, err := v.readLog(leaf, size-len(page.Events)+1)
		if err != nil {
			return page, err
		}
		for _, r := range recs {
			if leaf = r.Leaf; leaf >= total {
				return page, nil
			}
			e, err := v.decodeRecord(r)
			if err != nil {
				return page, err
			}
			if len(page.Events) == size {
				page.Next = strconv.FormatUint(leaf, 10)
				return page, nil
			}
			page.Events = append(page.Events, e)
		}
		leaf++
	}
	return page, nil
}
