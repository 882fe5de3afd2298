package lease

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Why a grant was not installed.
var (
	// ErrForeignGrant: the grant answers another process or another renewal than the one outstanding.
	ErrForeignGrant = errors.New("lease: grant answers another renewal")
	// ErrOldTerm: the granter's term is below one that this node has told a leader about.
	ErrOldTerm = errors.New("lease: grant of an older term")
	// ErrBehindFloor: this node has not applied every restriction that the granter has.
	ErrBehindFloor = errors.New("lease: behind the leader's last restriction")
	// ErrNoEvidence: the leader granted nothing, because a majority has not answered it lately.
	ErrNoEvidence = errors.New("lease: leader lacks evidence from a majority")
	// ErrWithheld: this node is not of the serving set.
	ErrWithheld = errors.New("lease: node is not to serve")
)

// Holder is a node's side of the protocol: one per process.
type Holder struct {
	cfg         Config
	node, boot  string
	incarnation uint64
	clock, sure Clock
	since       func() uint64 // since when this process serves as the node, by the visible state; 0: it does not
	begun       time.Duration
	current     [kinds]atomic.Pointer[terms]
	wanted      atomic.Int64 // when a lease of the kind Available was last asked for, on clock; 0: never
	off         rules

	mu             sync.Mutex
	seq            uint64        // of the outstanding renewal
	answered       bool          // whether seq has had its grant, or has lost its right to one
	sent, sentSure time.Duration // when seq was made, before it was sent
	term           uint64        // highest term ever reported
	echo           Echo
	known          uint64        // index at which this process began to serve, once a leader had it; 0: none had
	knownAt        time.Duration // when a leader was seen to have it
}

// NewHolder returns a holder without a lease. boot must be unique to this process.
func NewHolder(node, boot string, clock Clock) *Holder {
	return &Holder{cfg: Default(), node: node, boot: boot, clock: clock, begun: clock.Now(), answered: true, since: func() uint64 { return 0 }}
}

// With completes a new holder, before its first use: the cluster's configuration, the number of this process among those that the
// node's storage has seen (0: not counted), and a clock that goes on while the machine sleeps (nil: none).
func (h *Holder) With(cfg Config, incarnation uint64, sure Clock) *Holder {
	h.cfg, h.incarnation, h.sure = cfg, incarnation, sure
	return h
}

// Incumbent completes a new holder, before its first use: since names the index at which the visible state began to have this process serve as
// the node, 0 while it has another one do so, or none. A node acts on no lease of a process that does not serve: so from the moment at
// which a leader is known to have that index, an earlier process of the node gets no lease that is worth anything.
func (h *Holder) Incumbent(since func() uint64) *Holder {
	h.since = since
	return h
}

// Lease returns the current lease, which may have run out.
func (h *Holder) Lease() Lease { return Lease{h.current[Serving].Load()} }

// Available returns the current lease of that kind. Nobody has one before Want.
func (h *Holder) Available() Lease { return Lease{h.current[Available].Load()} }

// Want makes the next renewals ask for a lease of the kind Available, for as long as such a lease lasts. Who does not use such keys
// should not hold one, because restrictions would wait for it.
func (h *Holder) Want() { h.wanted.Store(int64(h.clock.Now()) + 1) }

// Renew makes the next renewal; an outstanding one is given up. term must read raft's current term when it is called: it is
// called after the echo was fixed, else the term would be older than the moment that the echo proves. applied reads the
// node's own applied index.
func (h *Holder) Renew(term, applied func() uint64) Renew {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	h.answered = false
	// Counted from here, before the message leaves: every delay is charged to the holder, never to the leader's wait.
	h.sent = h.clock.Now()
	if h.sure != nil {
		h.sentSure = h.sure.Now()
	}
	echo := h.echo
	h.term = max(h.term, term())
	// After the term: from here on no grant of an older one is installed, so what is left of older ones is left once and for all.
	remaining := Durations{Serving: h.Lease().Remaining(), Available: h.Available().Remaining()}
	wanted := time.Duration(h.wanted.Load())
	var since uint64
	var settled time.Duration
	if now := h.since(); now != 0 && now == h.known {
		since, settled = now, h.sent-h.knownAt
	}
	return Renew{
		Node: h.node, Boot: h.boot, Incarnation: h.incarnation, Seq: h.seq, Term: h.term, Applied: applied(), Echo: echo,
		Uptime: h.sent - h.begun, Remaining: remaining, Available: wanted != 0 && h.sent-wanted < h.cfg.Available,
		Since: since, Settled: settled,
	}
}

// Install takes a grant in. applied is read under the lock, so that the comparison with the floor is with the present state.
func (h *Holder) Install(g Grant, applied func() uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.off.has(answersItsRenewal) && (g.Boot != h.boot || g.Seq != h.seq || h.answered) {
		return ErrForeignGrant
	}
	h.answered = true
	if g.Term < h.term && !h.off.has(keepsItsTerm) {
		return ErrOldTerm // this node promised a newer leader to listen to nobody older
	}
	h.echo = Echo{Term: g.Term, GrantSeq: g.GrantSeq}
	if since := h.since(); since != h.known && since <= g.Floor {
		h.known, h.knownAt = since, h.clock.Now()
	}
	if g.Withheld {
		h.drop()
		return ErrWithheld
	}
	if g.Zero() {
		return ErrNoEvidence
	}
	if applied() < g.Floor && !h.off.has(floorAtInstall) {
		return ErrBehindFloor
	}
	if h.off.has(countFromSending) {
		h.sent = h.clock.Now()
	}
	h.extend(Serving, g.Duration, g.Term)
	if g.Available > 0 {
		h.extend(Available, g.Available, g.Term)
	}
	return nil
}

// extend keeps the later of two leases: a lease that was granted stays good for as long as somebody waits for it.
func (h *Holder) extend(k Kind, d time.Duration, term uint64) {
	l := &terms{clock: h.clock, sure: h.sure, expiry: h.sent + d, sureExpiry: h.sentSure + d, term: term}
	if old := h.current[k].Load(); old == nil || l.expiry > old.expiry {
		h.current[k].Store(l)
	}
}

// Drop gives the leases up, before their time, and the outstanding renewal with them. Nobody waits less because of it.
func (h *Holder) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop()
}

func (h *Holder) drop() {
	h.answered = true // a grant on its way was asked for under a clock that is not trusted any more
	h.known = 0       // nor is what it measured
	for k := range h.current {
		h.current[k].Store(nil)
	}
}
