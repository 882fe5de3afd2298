package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/ledger"
)

// What tending the log costs: a look at scanRecords records twice a second, so that the log of a million keys is looked through in
// about eight minutes, then rest.
const (
	scanRecords = 2000
	scanRest    = time.Hour
	// maxFetchPause is the longest pause between two tries to get what no node gave.
	maxFetchPause = time.Minute
	// damagedLeaves that wait to be looked at; more are found again by the scan.
	damagedLeaves = 64
)

// tendLog keeps the lifecycle log on this disk whole. What an installed snapshot skipped is fetched from other nodes; what does not
// read as it was written is replaced by what they have, and kept as evidence. Nothing is stored that does not lead to the root
// in this node's own state.
func (v *Vault) tendLog(ctx context.Context) error {
	pause, scan := lookAgain, scan{}
	for {
		err := v.mendLog(ctx, &scan)
		if err != nil && ctx.Err() == nil {
			v.log.Warn("the lifecycle log on this disk is not whole yet", "err", err)
			pause = min(2*pause, maxFetchPause)
		} else {
			pause = lookAgain
		}
		select {
		case leaf := <-v.damaged:
			v.healNoticed(ctx, leaf, &scan)
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wholeLog, as a noticed leaf, has the whole log looked through.
const wholeLog = math.MaxUint64

func (v *Vault) healNoticed(ctx context.Context, leaf uint64, at *scan) {
	if leaf == wholeLog {
		at.restart(time.Time{})
		return
	}
	if err := v.healLeaf(ctx, leaf); err != nil && ctx.Err() == nil {
		v.log.Warn("the lifecycle log on this disk is damaged and could not be healed yet", "leaf", leaf, "err", err)
		at.restart(v.cfg.Now().Add(maxFetchPause)) // which finds it again
	}
}

// noticeDamage has a leaf looked at soon.
func (v *Vault) noticeDamage(leaf uint64) {
	select {
	case v.damaged <- leaf:
	default: // the scan finds it
	}
}

// mendLog closes gaps, then looks at some more records.
func (v *Vault) mendLog(ctx context.Context, at *scan) error {
	if err := v.fetchMissing(ctx); err != nil {
		return err
	}
	return v.lookThrough(ctx, at)
}

// scan is how far the look through the log is.
type scan struct {
	next  uint64
	after time.Time // nothing is looked at before
}

func (s *scan) restart(after time.Time) { s.next, s.after = 0, after }

// lookThrough checks the next records against the hashes beside them and against the tree, and at the end the tree against the
// state.
func (v *Vault) lookThrough(ctx context.Context, at *scan) error {
	s := v.state()
	if v.cfg.Now().Before(at.after) || s.Tree().Size == 0 {
		return nil
	}
	next, err := v.cfg.Journal.Check(at.next, scanRecords)
	var damage *journal.Damage
	switch {
	case errors.As(err, &damage):
		at.next = damage.Number
		return v.healScanned(ctx, at)
	case errors.Is(err, journal.ErrTree):
		at.next = next
		return v.healScanned(ctx, at)
	case err != nil:
		return err
	}
	if at.next = next; next < s.Tree().Size {
		return nil
	}
	at.restart(v.cfg.Now().Add(scanRest))
	return v.compareRoots(ctx, s)
}

// healScanned heals the leaf that the scan has come to. One that cannot be healed does not stop the scan from finding others
// later: it begins anew after a while.
func (v *Vault) healScanned(ctx context.Context, at *scan) error {
	leaf := at.next
	if err := v.healLeaf(ctx, leaf); err != nil {
		at.restart(v.cfg.Now().Add(maxFetchPause))
		return fmt.Errorf("leaf %d: %w", leaf, err)
	}
	return nil
}

// compareRoots: the records, their hashes and the stored tree agree. If the state has another root, all three were rewritten, and
// only other nodes' records show where.
func (v *Vault) compareRoots(ctx context.Context, s *fsm.State) error {
	size := s.Tree().Size
	root, err := tlog.TreeHash(int64(size), v.cfg.Journal.Hashes())
	if err != nil || root == s.Tree().Root {
		return err
	}
	for at := uint64(0); at < size; {
		recs, err := v.fromPeers(ctx, at, size, s)
		if err != nil {
			return err
		}
		if !v.holdsAll(at, recs) {
			return v.healLeaf(ctx, at)
		}
		at += uint64(len(recs))
	}
	return v.cfg.Journal.Rebuild()
}

// fetchMissing closes the gaps that snapshots, or somebody who deleted files, left in the journal. Each piece is verified and durable
// before the next one is asked for, so memory does not grow with the gap, and a fetch that breaks off goes on where it was.
func (v *Vault) fetchMissing(ctx context.Context) error {
	s := v.state()
	for {
		from, to := v.cfg.Journal.Gap(s.Tree().Size)
		if from == to {
			return nil
		}
		for at := from; at < to; {
			data, err := v.fromPeers(ctx, at, to, s)
			if err != nil {
				return fmt.Errorf("events from leaf %d to %d are missing: %w", at, to, err)
			}
			if err := v.cfg.Journal.Fill(at, data); err != nil {
				return err
			}
			at += uint64(len(data))
		}
		v.log.Info("events fetched", "from", from, "to", to)
	}
}

// healLeaf replaces the segment that holds a leaf which does not read as it was written. Other nodes' records come first; what
// none of them has is taken from the damaged segment itself, if it proves.
func (v *Vault) healLeaf(ctx context.Context, leaf uint64) error {
	s := v.state()
	first, end, there := v.cfg.Journal.Extent(leaf)
	if !there {
		return v.fetchMissing(ctx)
	}
	end = min(end, s.Tree().Size)
	var data [][]byte
	for at := first; at < end; {
		piece, err := v.fromAnybody(ctx, at, end, s)
		if err != nil {
			return err
		}
		data = append(data, piece...)
		at += uint64(len(piece))
	}
	if first < end && v.holdsAll(first, data) {
		return v.healTree(leaf)
	}
	evidence, err := v.cfg.Journal.Replace(leaf, first, data)
	if err != nil {
		return err
	}
	v.log.Warn("the lifecycle log on this disk was damaged and is healed from other nodes", "leaf", leaf, "from", first, "to", first+uint64(len(data)), "evidence", evidence)
	return v.fetchMissing(ctx)
}

// holdsAll is holds for consecutive leaves.
func (v *Vault) holdsAll(first uint64, data [][]byte) bool {
	for len(data) > 0 {
		recs, err := v.cfg.Journal.Read(first, len(data), maxRecordBytes)
		if err != nil || len(recs) == 0 {
			return false
		}
		for i, r := range recs {
			if !bytes.Equal(r.Data, data[i]) || !r.Verifies() {
				return false
			}
		}
		first, data = first+uint64(len(recs)), data[len(recs):]
	}
	return true
}

// healTree: the records are good, so if the tree over them is not it is the file of hashes that was changed.
func (v *Vault) healTree(leaf uint64) error {
	if _, err := v.cfg.Journal.Check(leaf, 1); !errors.Is(err, journal.ErrTree) {
		return err // somebody healed it already
	}
	if err := v.cfg.Journal.Rebuild(); err != nil {
		return err
	}
	v.log.Warn("the stored tree of the lifecycle log was damaged and is made anew from the records", "leaf", leaf)
	return nil
}

// errNobody: there is no other node to ask.
var errNobody = errors.New("there is no other node that could have them")

// fromPeers gets leaves from at on, before to, from another node, and verifies them against the root of s.
func (v *Vault) fromPeers(ctx context.Context, at, to uint64, s *fsm.State) ([][]byte, error) {
	failed := errNobody
	for _, n := range s.Nodes() {
		if n.ID == v.cfg.Node {
			continue
		}
		piece, err := v.fromNode(ctx, n.ID, at, to, s)
		if err == nil {
			return piece, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed = fmt.Errorf("node %s: %w", n.ID, err)
	}
	return nil, failed
}

func (v *Vault) fromAnybody(ctx context.Context, at, to uint64, s *fsm.State) ([][]byte, error) {
	piece, err := v.fromPeers(ctx, at, to, s)
	if err == nil || ctx.Err() != nil {
		return piece, err
	}
	own, ownErr := v.fromNode(ctx, v.cfg.Node, at, to, s)
	if ownErr != nil {
		return nil, errors.Join(err, ownErr)
	}
	return own, nil
}

func (v *Vault) fromNode(ctx context.Context, n fsm.NodeID, at, to uint64, s *fsm.State) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	tree := s.Tree()
	p, err := askNode[piece](ctx, v, n, kindStretch, stretchQuery{From: at, To: to, Size: tree.Size})
	if err != nil {
		return nil, err
	}
	hashes := make([]tlog.Hash, len(p.Data))
	for i, d := range p.Data {
		hashes[i] = tlog.RecordHash(d)
	}
	switch {
	case len(p.Data) == 0, p.Proof.From != at, p.Proof.Size != tree.Size, uint64(len(p.Data)) > to-at:
		return nil, errors.New("it answers something else than it was asked")
	case p.Proof.Check(hashes, tree.Root) != nil:
		return nil, errors.New("its records do not have the root that this node's state has")
	}
	return p.Data, nil
}

// fetchTimeout bounds one question for records: a few megabytes over a slow line.
const fetchTimeout = 30 * time.Second

// stretchQuery asks for leaves from From on, before To, with what proves them in the tree of Size leaves.
type stretchQuery struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	Size uint64 `json:"size"`
}

// piece is some leaves and their proof.
type piece struct {
	Data  [][]byte       `json:"data"`
	Proof ledger.Stretch `json:"proof"`
}

// localStretch answers with the good records from From on, up to the first that is not.
func (v *Vault) localStretch(q stretchQuery) (piece, error) {
	if q.From >= q.To || q.To > q.Size {
		return piece{}, fmt.Errorf("%w: leaves %d to %d of %d", ErrInvalid, q.From, q.To, q.Size)
	}
	if have := v.cfg.Journal.TreeSize(); have < q.Size {
		return piece{}, fmt.Errorf("%w: its own log has %d leaves of %d", ErrUnavailable, have, q.Size)
	}
	recs, err := v.cfg.Journal.Read(q.From, int(min(q.To-q.From, defaultRecords)), maxRecordBytes)
	if d := (*journal.Damage)(nil); errors.As(err, &d) {
		return piece{}, fmt.Errorf("%w: its own log is damaged at leaf %d", ErrUnavailable, d.Number)
	}
	if err != nil {
		return piece{}, err
	}
	var p piece
	for _, r := range recs {
		if !r.Verifies() || r.Leaf >= q.To {
			break
		}
		p.Data = append(p.Data, r.Data)
	}
	p.Proof, err = ledger.ProveStretch(q.From, q.From+uint64(len(p.Data)), q.Size, v.cfg.Journal.Hashes())
	return p, err
}
