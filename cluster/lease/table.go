package lease

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Why a renewal was refused.
var (
	// ErrDeposed: the holder has seen a higher term, so this leader's time is over.
	ErrDeposed = errors.New("lease: holder is in a higher term")
	// ErrTooManyBoots: a node restarts faster than its leases run out.
	ErrTooManyBoots = errors.New("lease: too many restarts of one node within a lease")
	// ErrOlderTwin: a later process of the same node has renewed here, or two run on copies of one storage. Only one may serve.
	ErrOlderTwin = errors.New("lease: another process of this node has taken its place")
)

const (
	// maxBoots bounds the processes of one node that may hold leases at the same time. Each restart within W(D) adds one.
	maxBoots = 8
	// maxEchoes bounds the remembered sending times per process. A holder echoes the last grant it got, so only the
	// latest few can ever be asked for; an older echo is worth nothing and is no evidence.
	maxEchoes = 8
)

// Table is the leader's side of the protocol for one term. It must be made only after the leader has applied everything
// committed before that term (raft.Barrier), so that the floor it hands out is not behind an earlier leader's.
type Table struct {
	cfg     Config
	clock   Clock
	term    uint64
	elected time.Duration

	off rules

	mu        sync.Mutex
	seq       uint64
	long      bool // whether leases of the kind Available may exist
	voters    []string
	nodes     map[string]*standing
	withheld  func(node string) bool
	incumbent func(node string) (boot string, since uint64)
}

// standing is what is known of one node in this term.
type standing struct {
	proven      time.Duration // latest moment v at which the node had provably not entered a higher term
	evidence    bool          // whether proven means anything
	incarnation uint64        // the highest that renewed here
	before      Durations     // until when processes before those in boots may hold leases of earlier terms
	boots       []*boot       // latest last
	refused     []string      // older twins, latest last
}

// boot is one process of a node. Two are kept apart because a delayed message of the earlier one must not vouch for the later.
type boot struct {
	id      string
	applied uint64
	seen    time.Duration // when it last renewed
	expiry  Durations     // of what this leader granted it; meaningless unless granted
	granted [kinds]bool
	old     Durations     // until when it may hold leases of earlier terms
	fenced  []uint64      // restrictions for which it has put up a fence, latest last
	sent    []sentMark    // latest last
	goal    uint64        // a floor that it was told of, and has not reported yet when it lags
	goalAt  time.Duration // when that was the floor
}

type sentMark struct {
	seq uint64
	at  time.Duration
}

// NewTable starts the table of term. elected is a moment on clock that is not before the election. voters are those of raft's
// latest configuration, this node among them.
func NewTable(cfg Config, clock Clock, term uint64, elected time.Duration, voters []string) *Table {
	return &Table{
		cfg: cfg, clock: clock, term: term, elected: elected,
		voters: slices.Clone(voters), nodes: make(map[string]*standing), withheld: func(string) bool { return false },
		incumbent: func(string) (string, uint64) { return "", 0 },
	}
}

// Term of the table.
func (t *Table) Term() uint64 { return t.term }

// SetVoters follows raft's latest configuration. Raft changes one server at a time, so a majority of the old set and one of
// the new set always share a voter.
func (t *Table) SetVoters(voters []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.voters = slices.Clone(voters)
}

// AllowAvailable says that the state knows of something to be used under leases of that kind. Nobody grants one before: so a
// leader whose state knows of nothing need not wait for any, of its own term or of an earlier one.
func (t *Table) AllowAvailable() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.long = true
}

// Withhold says which nodes get no lease. Their renewals count as before: a voter that serves nothing is evidence all the same.
func (t *Table) Withhold(from func(node string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.withheld = from
}

// Incumbents says which process the leader's state has serve as a node, and from which index on; an empty boot id if none ever did. The leader must
// not propose to have a process serve that has not renewed here, see Latest: so its table knows of all that began to in its term.
func (t *Table) Incumbents(of func(node string) (boot string, since uint64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.incumbent = of
}

// Latest reports whether a process is the latest of its node that has renewed here; ErrOlderTwin if a later one has, too.
func (t *Table) Latest(node, id string) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.nodes[node]
	if s == nil {
		return false, nil
	}
	switch i := slices.IndexFunc(s.boots, func(b *boot) bool { return b.id == id }); i {
	case -1:
		if slices.Contains(s.refused, id) {
			return false, ErrOlderTwin
		}
		return false, nil
	case len(s.boots) - 1:
		return true, nil
	default:
		return false, ErrOlderTwin
	}
}

// Recount begins to count a node's processes anew: it was removed and has come again, perhaps with another storage, whose processes
// are no older twins. What processes of that name may hold stays in the table.
func (t *Table) Recount(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.nodes[node]; s != nil {
		s.incarnation = 0
	}
}

func (t *Table) longest(k Kind) time.Duration {
	if k == Available && !t.long {
		return 0
	}
	return t.cfg.Longest(k)
}

// Renew answers a renewal. floor is read under the lock: a grant made before a restriction was applied here is in the table
// when that restriction's rule is evaluated, and a later one carries it in its floor.
func (t *Table) Renew(r Renew, floor func() uint64) (Grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Term > t.term {
		return Grant{}, ErrDeposed
	}
	now := t.clock.Now()
	b, err := t.boot(r, now)
	if err != nil {
		return Grant{}, err
	}
	b.applied, b.seen = max(b.applied, r.Applied), now
	t.register(r, b, now)
	t.prove(r, b)
	return t.grant(r, b, now, floor()), nil
}

// register takes in what a process that has reached this term has left of earlier ones: it installs nothing older any more.
func (t *Table) register(r Renew, b *boot, now time.Duration) {
	if r.Term != t.term {
		return
	}
	for k := range kinds {
		left := t.cfg.W(r.Remaining[k])
		if left == 0 {
			left = -1 // it has none: that needs no waiting at all
		}
		b.old[k] = min(b.old[k], now+left)
	}
}

// boot finds or makes the record of the process that sent r.
func (t *Table) boot(r Renew, now time.Duration) (*boot, error) {
	s := t.nodes[r.Node]
	if s == nil {
		s = &standing{}
		t.nodes[r.Node] = s
	}
	if t.abandoned(s, now) {
		s.incarnation = 0
	}
	if r.Incarnation < s.incarnation && !t.off.has(olderTwin) {
		s.refuse(r.Boot)
		return nil, ErrOlderTwin
	}
	for _, b := range s.boots {
		if b.id == r.Boot || t.off.has(separateProcesses) {
			s.incarnation = max(s.incarnation, r.Incarnation)
			return b, nil
		}
	}
	if r.Incarnation != 0 && r.Incarnation == s.incarnation && !t.off.has(olderTwin) {
		s.refuse(r.Boot)
		return nil, ErrOlderTwin
	}
	s.boots = slices.DeleteFunc(s.boots, func(b *boot) bool { return !b.held(now) })
	if len(s.boots) >= maxBoots {
		return nil, ErrTooManyBoots
	}
	s.incarnation = max(s.incarnation, r.Incarnation)
	t.follows(s, r, now)
	b := &boot{id: r.Boot, old: t.sinceElection()}
	s.boots = append(s.boots, b)
	return b, nil
}

// abandoned: no process of the node may hold a lease, and the latest is not heard any more. An older twin may have outlived it.
func (t *Table) abandoned(s *standing, now time.Duration) bool {
	return len(s.boots) > 0 && now-s.boots[len(s.boots)-1].seen > t.cfg.W(t.cfg.D) &&
		!slices.ContainsFunc(s.boots, func(b *boot) bool { return b.held(now) })
}

// Refused reports whether a process was refused as an older twin before.
func (t *Table) Refused(node, id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.nodes[node]
	return s != nil && slices.Contains(s.refused, id)
}

// refuse remembers an older twin, so that somebody can be told.
func (s *standing) refuse(boot string) {
	if slices.Contains(s.refused, boot) {
		return
	}
	s.refused = append(s.refused, boot)
	s.refused = s.refused[max(0, len(s.refused)-maxBoots):]
}

// knows of a process that it has been asked for leases here.
func (s *standing) knows(id string) bool {
	return slices.ContainsFunc(s.boots, func(b *boot) bool { return b.id == id })
}

// follows bounds what other processes of the node than a new one may still hold, ended or not: of this term it is in the table. Of earlier
// terms nothing outlives the wait after the election, and nothing that the other could act on W(D) after a leader had the state in which
// this one serves, on any clock; if this leader's state has that, and nothing newer. Where nobody ever served as the node there is nothing.
func (t *Table) follows(s *standing, r Renew, now time.Duration) {
	boot, since := t.incumbent(r.Node)
	if boot == "" || t.off.has(earlierProcess) {
		return
	}
	var settled time.Duration
	if boot == r.Boot && since == r.Since {
		settled = r.Settled
	}
	if t.off.has(knownToServe) {
		settled = r.Uptime
	}
	for k, last := range t.sinceElection() {
		if young := t.cfg.W(t.longest(Kind(k))) - settled; young > 0 {
			s.before[k] = max(s.before[k], min(last, now+t.cfg.W(young)))
		}
	}
}

// sinceElection is until when anybody may hold a lease of an earlier term.
func (t *Table) sinceElection() (last Durations) {
	for k := range kinds {
		last[k] = t.elected + t.cfg.W(t.longest(k))
	}
	return last
}

// Distrust makes the table begin again, because this node's clock has stood still or jumped: no evidence counts that came before,
// and everybody may hold what nobody knows of.
func (t *Table) Distrust() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.elected = t.clock.Now()
	for _, s := range t.nodes {
		s.evidence, s.before = false, t.sinceElection()
		for _, b := range s.boots {
			b.sent, b.old = nil, t.sinceElection()
		}
	}
}

// prove takes the echo as evidence: the holder had received a grant that left here at v when it read its term, and the term
// was not above ours.
func (t *Table) prove(r Renew, b *boot) {
	if r.Echo.Term != t.term {
		return
	}
	for _, m := range b.sent {
		if m.seq == r.Echo.GrantSeq {
			s := t.nodes[r.Node]
			s.proven, s.evidence = max(s.proven, m.at), true
			return
		}
	}
}

// grant records what it promises before it leaves.
func (t *Table) grant(r Renew, b *boot, now time.Duration, floor uint64) Grant {
	t.seq++
	b.sent = append(b.sent, sentMark{seq: t.seq, at: now})
	if len(b.sent) > maxEchoes {
		b.sent = slices.Delete(b.sent, 0, len(b.sent)-maxEchoes)
	}
	g := Grant{Boot: r.Boot, Seq: r.Seq, Term: t.term, GrantSeq: t.seq, Floor: floor}
	if g.Withheld = t.withheld(r.Node); g.Withheld {
		return g
	}
	anchor, ok := t.anchor()
	if t.off.has(quorumEcho) {
		anchor, ok = now, true
	}
	if !ok || b.lags(floor, now, t.cfg.Period()) {
		return g
	}
	// The grant lasts from the anchor, not from now: a leader of a higher term may have been elected any time after it.
	g.Duration = t.promise(b, Serving, now, anchor)
	if r.Available && g.Duration > 0 {
		g.Available = t.promise(b, Available, now, anchor)
	}
	return g
}

// lags: for longer than patience the process has not applied a floor that it was told of. It would install no grant, and whoever
// waits for what it was granted would wait for ever: a node whose state machine stands still goes on renewing. A floor that only
// moves on all the time is no lag, because the goal follows it when it is reached.
func (b *boot) lags(floor uint64, now, patience time.Duration) bool {
	if b.applied >= b.goal {
		b.goal, b.goalAt = floor, now
	}
	return b.applied < b.goal && now-b.goalAt > patience
}

// promise notes a grant and returns how long it is.
func (t *Table) promise(b *boot, k Kind, now, anchor time.Duration) time.Duration {
	d := t.longest(k) - (now - anchor)
	if d <= 0 {
		return 0
	}
	wait := t.cfg.W(d)
	if t.off.has(driftMargin) {
		wait = d
	}
	b.expiry[k], b.granted[k] = max(b.expiry[k], now+wait), true
	return d
}

// anchor is a moment before which no leader of a higher term was elected: the ⌈(n+1)/2⌉-th latest proof among n voters, so
// that a majority had not left the term then.
func (t *Table) anchor() (time.Duration, bool) {
	var proven []time.Duration
	for _, v := range t.voters {
		if s := t.nodes[v]; s != nil && s.evidence {
			proven = append(proven, s.proven)
		}
	}
	majority := len(t.voters)/2 + 1
	if len(proven) < majority {
		return 0, false
	}
	slices.Sort(proven)
	return proven[len(proven)-majority], true
}

// held: it may hold a lease of some kind.
func (b *boot) held(now time.Duration) bool {
	return now <= b.bound(Serving) || now <= b.bound(Available)
}

// bound is until when the process may hold a lease of a kind.
func (b *boot) bound(k Kind) time.Duration {
	if b.granted[k] {
		return max(b.old[k], b.expiry[k])
	}
	return b.old[k]
}
