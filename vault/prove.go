package vault

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/journal"
	"github.com/conclave-vault/conclave/vault/ledger"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Checkpoint is the head of the log, signed by this node, with what is needed to verify it and, if that was asked for, the proof
// that it continues an earlier size.
type Checkpoint struct {
	Note         string
	Size         uint64
	Root         []byte
	Node         fsm.NodeID
	Certificates [][]byte // DER, of every node
	Consistency  []tlog.Hash
	Index        uint64
}

// SignCheckpoint signs the head of the log as this node's own state has it. It needs neither quorum nor master: the key is the
// node's identity, so a sealed node and one that is cut off sign too. from is the size of an earlier tree; 0: no proof.
func (v *Vault) SignCheckpoint(ctx context.Context, c policy.Caller, from uint64) (Checkpoint, error) {
	s := v.state()
	if policy.Identify(s, c) != nil { // perhaps this state is behind
		var err error
		if s, err = v.current(ctx); err != nil {
			return Checkpoint{}, err
		}
		if err := policy.Identify(s, c); err != nil {
			return Checkpoint{}, err
		}
	}
	return v.checkpoint(s, from)
}

func (v *Vault) checkpoint(s *fsm.State, from uint64) (Checkpoint, error) {
	tree := s.Tree()
	if from > tree.Size {
		return Checkpoint{}, fmt.Errorf("%w: an earlier tree of %d leaves, and the log has %d", ErrInvalid, from, tree.Size)
	}
	signer, err := ledger.NewSigner(ledger.KeyName(s.ClusterID(), string(v.cfg.Node)), v.cfg.Token.Identity())
	if err != nil {
		return Checkpoint{}, err
	}
	out := Checkpoint{Size: tree.Size, Root: tree.Root[:], Node: v.cfg.Node, Certificates: nodeCertificates(s), Index: s.Applied()}
	if out.Note, err = (ledger.Checkpoint{Cluster: s.ClusterID(), Size: tree.Size, Root: tree.Root}).Sign(signer); err != nil {
		return Checkpoint{}, err
	}
	if from > 0 {
		out.Consistency, err = v.proveConsistency(from, tree)
	}
	return out, err
}

func nodeCertificates(s *fsm.State) [][]byte {
	var all [][]byte
	for _, n := range s.Nodes() {
		all = append(all, n.Certificate)
	}
	return all
}

// proveConsistency reads the proof from the stored tree and checks it before it is given away: it rests on a disk.
func (v *Vault) proveConsistency(from uint64, tree fsm.Tree) ([]tlog.Hash, error) {
	if err := v.wholeTree(tree.Size); err != nil {
		return nil, err
	}
	hashes := v.cfg.Journal.Hashes()
	proof, err := tlog.ProveTree(int64(tree.Size), int64(from), hashes)
	if err != nil {
		return nil, err
	}
	old, err := tlog.TreeHash(int64(from), hashes)
	if err != nil {
		return nil, err
	}
	if tlog.CheckTree(proof, int64(tree.Size), tree.Root, int64(from), old) != nil {
		return nil, v.brokenTree()
	}
	return proof, nil
}

// wholeTree: proofs need the hashes of every leaf.
func (v *Vault) wholeTree(size uint64) error {
	if have := v.cfg.Journal.TreeSize(); have < size {
		return fmt.Errorf("%w: this node still fetches what it missed of the lifecycle log and has %d of %d leaves; another node can prove", ErrUnavailable, have, size)
	}
	return nil
}

func (v *Vault) brokenTree() error {
	v.noticeDamage(wholeLog)
	return fmt.Errorf("%w: what this node's disk holds of the tree does not lead to the root; it is looked at, and another node can prove", ErrUnavailable)
}

// ProvenEvent is a record with its path to the root.
type ProvenEvent struct {
	Leaf uint64
	Data []byte
	Path []tlog.Hash
}

// ProofPage is a page of a key's proven events. All pages of one proof are of the tree of the first page's checkpoint.
type ProofPage struct {
	Checkpoint Checkpoint // only on the first page
	Size       uint64
	Events     []ProvenEvent
	Next       string
}

// Prove proves the events of a key, for whoever may use it. size is that of an earlier page's checkpoint; 0 on the first page,
// which signs a new one.
func (v *Vault) Prove(ctx context.Context, c policy.Caller, name fsm.KeyName, size uint64, token string, limit int) (ProofPage, error) {
	k, _, err := v.Key(ctx, c, name)
	if err != nil {
		return ProofPage{}, err
	}
	from, limit, err := pageStart(token, limit)
	if err != nil {
		return ProofPage{}, err
	}
	s := v.state()
	page := ProofPage{Size: size}
	if size == 0 {
		if page.Checkpoint, err = v.checkpoint(s, 0); err != nil {
			return ProofPage{}, err
		}
		page.Size = page.Checkpoint.Size
	}
	if page.Size > s.Tree().Size {
		return ProofPage{}, fmt.Errorf("%w: a tree of %d leaves, and the log has %d here", ErrUnavailable, page.Size, s.Tree().Size)
	}
	return page, v.provePage(&page, keySubject(k.Name), from, limit)
}

func (v *Vault) provePage(page *ProofPage, subject string, from uint64, limit int) error {
	if err := v.wholeTree(page.Size); err != nil {
		return err
	}
	hashes := v.cfg.Journal.Hashes()
	root, err := tlog.TreeHash(int64(page.Size), hashes)
	if err != nil {
		return err
	}
	if page.Checkpoint.Note != "" && root != tlog.Hash(page.Checkpoint.Root) {
		return v.brokenTree()
	}
	found, next, err := v.subjectEvents(subject, from, page.Size, limit)
	if err != nil {
		return err
	}
	for _, r := range found {
		path, err := tlog.ProveRecord(int64(page.Size), int64(r.Leaf), hashes)
		if err != nil {
			return err
		}
		if tlog.CheckRecord(path, int64(page.Size), root, int64(r.Leaf), tlog.RecordHash(r.Data)) != nil {
			return v.brokenTree()
		}
		page.Events = append(page.Events, ProvenEvent{Leaf: r.Leaf, Data: r.Data, Path: path})
	}
	page.Next = next
	return nil
}

// subjectEvents finds records of a subject by the journal's index: from leaf from on, before size, at most limit; next is where to go
// on.
func (v *Vault) subjectEvents(subject string, from, size uint64, limit int) (found []journal.Record, next string, err error) {
	if gap, to := v.cfg.Journal.Gap(size); gap < to {
		return nil, "", fmt.Errorf("%w: this node still fetches what it missed of the lifecycle log, from leaf %d to %d; another node has it", ErrUnavailable, gap, to)
	}
	leaves, err := v.cfg.Journal.Lookup(subject, from, limit+1)
	if err != nil {
		return nil, "", err
	}
	for _, leaf := range leaves {
		if leaf >= size {
			break
		}
		if len(found) == limit {
			return found, strconv.FormatUint(leaf, 10), nil
		}
		recs, err := v.readLog(leaf, 1)
		if err != nil {
			return nil, "", err
		}
		if e, err := v.decodeRecord(recs[0]); err != nil {
			return nil, "", err
		} else if e.Subject == subject {
			found = append(found, recs[0])
		}
	}
	if len(leaves) > limit && leaves[limit] < size { // one of them was another subject's
		return found, strconv.FormatUint(leaves[limit], 10), nil
	}
	return found, "", nil
}

// eventsOf lists the events of one subject, whatever the age and size of the log.
func (v *Vault) eventsOf(_ context.Context, s *fsm.State, subject, token string, size int) (EventPage, error) {
	leaf, size, err := pageStart(token, size)
	if err != nil {
		return EventPage{}, err
	}
	page := EventPage{Index: s.Applied()}
	found, next, err := v.subjectEvents(subject, leaf, s.Tree().Size, size)
	if err != nil {
		return page, err
	}
	for _, r := range found {
		e, err := v.decodeRecord(r)
		if err != nil {
			return page, err
		}
		page.Events = append(page.Events, e)
	}
	page.Next = next
	return page, nil
}

// readLog reads records, at least one. Damage is looked at at once; the caller hears that another node has them.
func (v *Vault) readLog(leaf uint64, limit int) ([]journal.Record, error) {
	recs, err := v.cfg.Journal.Read(leaf, min(limit, defaultRecords), maxRecordBytes)
	if d := (*journal.Damage)(nil); errors.As(err, &d) {
		v.noticeDamage(d.Number)
		return nil, fmt.Errorf("%w: the lifecycle log on this node's disk is damaged at leaf %d (%s) and is being healed; another node has it", ErrUnavailable, d.Number, d.Reason)
	}
	if err == nil && len(recs) == 0 {
		err = errors.New("nothing is there yet")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the lifecycle log at leaf %d: %w", leaf, err)
	}
	return recs, nil
}

// decodeRecord takes a record apart that is as it was written.
func (v *Vault) decodeRecord(r journal.Record) (fsm.Event, error) {
	e, err := fsm.DecodeEvent(r.Data)
	if err == nil && r.Verifies() {
		return e, nil
	}
	v.noticeDamage(r.Leaf)
	return e, fmt.Errorf("%w: the lifecycle log on this node's disk is damaged at leaf %d and is being healed; another node has it", ErrUnavailable, r.Leaf)
}

// subjectOf is what the journal's index goes by.
func subjectOf(record []byte) (string, bool) {
	e, err := fsm.DecodeEvent(record)
	return e.Subject, err == nil
}
