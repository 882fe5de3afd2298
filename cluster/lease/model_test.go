package lease

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// model is a cluster without anything but the protocol: real Holders and Tables over a raft that is reduced to terms, votes and logs,
// in real time that only the model knows. Every process reads a clock of its own, at a rate of its own. It is the harshest user
// that the protocol can have: a leader that was replaced notices only when a message tells it.
type model struct {
	t      testing.TB
	rand   *rand.Rand
	cfg    Config
	off    rules
	ack    func(*process, uint64) bool // the rule under which a leader acknowledges
	report func(*process) uint64       // the index that a process reports and compares

	now    time.Duration
	events queue
	order  int

	nodes []*process // the present process of each node: the one that the others talk to
	older []*process // processes that a later one on a copy of their storage has replaced, and that go on
	cut   map[[2]int]bool
	calm  bool // nothing is delayed
	mute  bool // no more process begins to serve

	acked      uint64
	done       []uint64 // what was acknowledged, in the order of that
	acks       int
	fences     int
	grants     int
	violations int
	faults     int
}

// storage survives processes.
type storage struct {
	term        uint64
	log         []entry
	incarnation uint64
}

// entry is a restriction, or has a process serve as its node.
type entry struct {
	term uint64
	node int
	boot string // empty: a restriction
}

// incumbent is the process that serves as a node in the state at an index, and since when; none if boot is empty.
func incumbent(log []entry, applied uint64, node int) (boot string, since uint64) {
	for i := applied; i > 0; i-- {
		if e := log[i-1]; e.boot != "" && e.node == node {
			return e.boot, i
		}
	}
	return "", 0
}

type process struct {
	m      *model
	id     int
	disk   *storage
	boot   string
	rate   float64
	shift  time.Duration
	holder *Holder
	off    bool          // has ended
	paused time.Duration // until then it does nothing; its clock goes on
	frozen time.Duration // until then its state machine does nothing

	commit, applied uint64
	fenced          map[uint64]bool // restrictions that it keeps to without having applied them
	leader          *process        // believed

	leading uint64 // term in which it leads; 0: it does not
	elected time.Duration
	noop    uint64 // index of its first entry
	matched map[int]uint64
	table   *Table
	waiting []uint64
	pushed  map[uint64]bool // of waiting: whose fences were asked for
}

func (p *process) Now() time.Duration { return p.shift + time.Duration(float64(p.m.now)*p.rate) }

type event struct {
	at    time.Duration
	order int
	do    func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

func newModel(t testing.TB, size int, seed uint64, off rules) *model {
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), cfg: Config{D: 2 * time.Second, Rho: 0.10}, off: off, cut: map[[2]int]bool{},
		ack: func(p *process, i uint64) bool { return p.table.Acked(i, names(size)).Done },
	}
	m.report = func(p *process) uint64 { return p.applied }
	for id := range size {
		m.nodes = append(m.nodes, m.begin(id, &storage{}))
	}
	return m
}

func names(size int) (all []string) {
	for id := range size {
		all = append(all, fmt.Sprint("n", id))
	}
	return all
}

// begin starts a process on a storage.
func (m *model) begin(id int, disk *storage) *process {
	disk.incarnation++
	m.order++
	p := &process{
		m: m, id: id, disk: disk, boot: fmt.Sprint("boot ", m.order), rate: 1 + m.cfg.Rho*(2*m.rand.Float64()-1),
		fenced: map[uint64]bool{}, pushed: map[uint64]bool{},
	}
	if m.rand.IntN(2) == 0 { // the extremes matter most
		p.rate = []float64{1 - m.cfg.Rho, 1 + m.cfg.Rho}[m.rand.IntN(2)]
	}
	p.shift = time.Duration(m.rand.Int64N(int64(time.Hour)))
	p.holder = NewHolder(fmt.Sprint("n", id), p.boot, p).With(m.cfg, disk.incarnation, nil).Incumbent(p.since)
	p.holder.off = m.off
	m.after(m.between(0, m.cfg.Period()), p.renewLoop)
	m.after(m.between(0, 100*time.Millisecond), p.lead)
	return p
}

// since when the process serves as its node, by its own state.
func (p *process) since() uint64 {
	if boot, since := incumbent(p.disk.log, p.applied, p.id); boot == p.boot {
		return since
	}
	return 0
}

func (m *model) after(d time.Duration, do func()) {
	m.order++
	heap.Push(&m.events, event{m.now + d, m.order, do})
}

func (m *model) between(least, most time.Duration) time.Duration {
	return least + time.Duration(m.rand.Int64N(int64(most-least)+1))
}

// run goes on until a moment, or until enough; and looks for a violation after every step.
func (m *model) run(until time.Duration, enough func() bool) {
	for len(m.events) > 0 && m.events[0].at <= until && !(enough != nil && enough()) {
		e := heap.Pop(&m.events).(event)
		m.now = e.at
		e.do()
		m.judge()
	}
	if enough == nil {
		m.now = max(m.now, until)
	}
}

// judge is the promise: no process finds a valid lease beside a state that lacks what was acknowledged, and no fence for it.
func (m *model) judge() {
	for _, p := range slices.Concat(m.nodes, m.older) {
		if !p.off && m.now >= p.paused && p.applied < m.acked && p.holder.Lease().Valid() && (p.since() != 0 || m.off.has(incumbentOnly)) && p.lacks() {
			m.violations++
		}
	}
}

// note an acknowledgement, and forget those that everybody has applied.
func (m *model) note(acked uint64) {
	everywhere := acked
	for _, p := range slices.Concat(m.nodes, m.older) {
		everywhere = min(everywhere, p.applied)
	}
	m.done = append(slices.DeleteFunc(m.done, func(i uint64) bool { return i <= everywhere }), acked)
}

func (p *process) lacks() bool {
	return slices.ContainsFunc(p.m.done, func(i uint64) bool { return i > p.applied && !p.fenced[i] })
}

// putUpFences asks everybody to keep to a restriction, each message with its own delay and its own chance to be lost.
func (p *process) putUpFences(i uint64) {
	m := p.m
	if p.pushed[i] || i > p.applied {
		return
	}
	p.pushed[i] = true
	for _, to := range m.nodes {
		if to == p || m.rand.IntN(3) == 0 {
			continue
		}
		m.deliver(p, to, m.delay(), func() {
			to.fenced[i] = true
			m.deliver(to, p, m.delay(), func() {
				if p.table != nil {
					m.fences++
					p.table.Fenced(fmt.Sprint("n", to.id), to.boot, i)
				}
			})
		})
	}
}

// deliver calls do at a process after the network's delay, unless the link is cut when it is sent, or the process has ended.
// What reaches a paused process waits.
func (m *model) deliver(from, to *process, delay time.Duration, do func()) {
	if m.cut[[2]int{from.id, to.id}] {
		return
	}
	m.after(delay, func() { to.awake(do) })
}

func (p *process) awake(do func()) {
	switch {
	case p.off:
	case p.m.now < p.paused:
		p.m.after(p.paused-p.m.now, func() { p.awake(do) })
	default:
		do()
	}
}

func (m *model) delay() time.Duration {
	if m.calm {
		return time.Millisecond
	}
	if m.rand.IntN(20) == 0 {
		return m.between(0, 4*time.Second)
	}
	return m.between(0, 5*time.Millisecond)
}

// renewLoop is a process as holder.
func (p *process) renewLoop() {
	if p.off {
		return
	}
	p.awake(p.renew)
	p.m.after(p.m.cfg.Period(), p.renewLoop)
}

func (p *process) renew() {
	leader := p.leader
	if leader == nil {
		return
	}
	p.renewWith(leader, p.m.delay(), p.m.delay())
}

func (p *process) renewWith(leader *process, there, back time.Duration) {
	m := p.m
	applied := func() uint64 { return m.report(p) }
	r := p.holder.Renew(func() uint64 { return p.disk.term }, applied)
	m.deliver(p, leader, there, func() {
		if leader.table == nil {
			return
		}
		g, err := leader.table.Renew(r, func() uint64 { return leader.applied })
		if err != nil {
			return
		}
		m.deliver(leader, p, back, func() {
			if p.holder.Install(g, applied) == nil {
				m.grants++
			}
		})
	})
}

// lead is a process as leader: it replicates, and acknowledges what its rule allows.
func (p *process) lead() {
	if p.off {
		return
	}
	p.m.after(p.m.between(20*time.Millisecond, 60*time.Millisecond), p.lead)
	p.awake(func() {
		if p.leading == 0 {
			return
		}
		p.replicate()
		if p.table == nil {
			return
		}
		p.nameIncumbents()
		p.waiting = slices.DeleteFunc(p.waiting, func(i uint64) bool {
			p.putUpFences(i)
			if i > p.applied || !p.m.ack(p, i) {
				return false
			}
			p.m.acked, p.m.acks = max(p.m.acked, i), p.m.acks+1
			p.m.note(i)
			return true
		})
	})
}

// nameIncumbents has the latest process of each node that has renewed here serve as it, some time after it has begun.
func (p *process) nameIncumbents() {
	for _, to := range p.m.nodes {
		if has, _ := incumbent(p.disk.log, uint64(len(p.disk.log)), to.id); has == to.boot || p.m.mute || p.m.rand.IntN(20) != 0 {
			continue
		}
		if latest, err := p.table.Latest(fmt.Sprint("n", to.id), to.boot); err == nil && latest {
			p.add(entry{node: to.id, boot: to.boot})
		}
	}
}

func (p *process) replicate() {
	term, log, commit := p.leading, p.disk.log, p.commit
	for _, to := range p.m.nodes {
		if to != p {
			p.m.deliver(p, to, p.m.delay(), func() { to.append(p, term, log, commit) })
		}
	}
	p.count()
}

// append takes a leader's message: its term, its log, and how much of it is committed.
func (p *process) append(from *process, term uint64, log []entry, commit uint64) {
	if term < p.disk.term {
		p.m.deliver(p, from, p.m.delay(), func() { from.hear(p.disk.term) })
		return
	}
	p.hear(term)
	p.leader = from
	mine := p.disk.log
	if len(log) > len(mine) || mine[len(log)-1].term != log[len(log)-1].term {
		p.disk.log = log
	}
	has := uint64(len(log))
	p.learn(min(commit, has))
	p.m.deliver(p, from, p.m.delay(), func() {
		if from.leading == term {
			from.matched[p.id] = max(from.matched[p.id], has)
			from.count()
		}
	})
}

// hear of a term: whoever leads an older one leads no more.
func (p *process) hear(term uint64) {
	if term > p.disk.term {
		p.disk.term, p.leading, p.table, p.waiting = term, 0, nil, nil
	}
}

// count commits what a majority has, of this leader's own term only.
func (p *process) count() {
	has := []uint64{uint64(len(p.disk.log))}
	for id := range p.m.nodes {
		if id != p.id {
			has = append(has, p.matched[id])
		}
	}
	slices.Sort(has)
	if i := has[(len(has)-1)/2]; i >= p.noop {
		p.learn(i)
	}
}

// learn what is committed; the state machine follows in its own time.
func (p *process) learn(commit uint64) {
	if commit <= p.commit {
		return
	}
	p.commit = commit
	p.m.after(p.m.between(0, 10*time.Millisecond), func() { p.apply(commit) })
}

func (p *process) apply(index uint64) {
	switch wait := max(p.frozen, p.paused) - p.m.now; {
	case p.off:
	case wait > 0:
		p.m.after(wait, func() { p.apply(index) })
	default:
		p.applied = max(p.applied, index)
		if p.leading != 0 && p.table == nil && p.applied >= p.noop {
			p.table = NewTable(p.m.cfg, p, p.leading, p.elected, names(len(p.m.nodes)))
			p.table.off, p.leader = p.m.off, p
			p.table.Incumbents(func(node string) (string, uint64) {
				var id int
				_, _ = fmt.Sscanf(node, "n%d", &id)
				return incumbent(p.disk.log, p.applied, id)
			})
		}
	}
}

// elect makes a candidate ask for votes; nobody votes twice in a term, nor for a shorter log.
func (p *process) elect() {
	if p.off || p.m.now < p.paused {
		return
	}
	p.hear(p.disk.term + 1)
	term, votes := p.disk.term, 1
	for _, v := range p.m.nodes {
		blocked := v == p || v.off || p.m.now < v.paused || p.m.cut[[2]int{p.id, v.id}] || p.m.cut[[2]int{v.id, p.id}]
		if !blocked && v.disk.term < term && newer(p.disk.log, v.disk.log) {
			v.hear(term)
			votes++
		}
	}
	if votes <= len(p.m.nodes)/2 {
		return
	}
	p.leading, p.elected, p.matched = term, p.Now(), map[int]uint64{}
	p.propose()
	p.noop = uint64(len(p.disk.log))
}

func newer(a, b []entry) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) >= len(b)
	}
	ta, tb := a[len(a)-1].term, b[len(b)-1].term
	return ta > tb || ta == tb && len(a) >= len(b)
}

// propose a restriction.
func (p *process) propose() uint64 {
	i := p.add(entry{})
	p.waiting = append(p.waiting, i)
	return i
}

// add an entry to the leader's log.
func (p *process) add(e entry) uint64 {
	e.term = p.leading
	p.disk.log = append(slices.Clone(p.disk.log), e)
	p.replicate()
	return uint64(len(p.disk.log))
}

// restart ends a process and begins the next one on its storage.
func (m *model) restart(id int) {
	m.nodes[id].off = true
	m.nodes[id] = m.begin(id, m.nodes[id].disk)
}

// double starts a process on a copy of the storage. From now on the others talk to it; the older one goes on.
func (m *model) double(id int) {
	old := m.nodes[id]
	old.leading, old.table = 0, nil // raft excludes that a copy and its original both lead: out of the model
	m.older = append(m.older, old)
	disk := *old.disk
	disk.log = slices.Clone(disk.log)
	m.nodes[id] = m.begin(id, &disk)
	m.nodes[id].commit, m.nodes[id].applied = old.commit, old.applied
}

// disturb is the faults, without end.
func (m *model) disturb() {
	m.after(m.between(200*time.Millisecond, 3*time.Second), m.disturb)
	m.faults++
	p := m.nodes[m.rand.IntN(len(m.nodes))]
	if m.rand.IntN(2) == 0 {
		for _, q := range m.nodes {
			if q.table != nil {
				p = q
			}
		}
	}
	length := m.between(100*time.Millisecond, 6*time.Second)
	links := func(set bool, in, out bool) {
		for id := range m.nodes {
			if in {
				m.cut[[2]int{id, p.id}] = set
			}
			if out {
				m.cut[[2]int{p.id, id}] = set
			}
		}
		m.cut[[2]int{p.id, p.id}] = false
	}
	switch kind := m.rand.IntN(8); kind {
	case 0, 1, 2:
		in, out := kind != 1, kind != 2
		links(true, in, out)
		m.after(length, func() { links(false, in, out) })
	case 3:
		p.paused = m.now + length
	case 4:
		p.frozen = m.now + length
	case 5:
		m.restart(p.id)
	case 6:
		if len(m.older) < 3 {
			m.double(p.id)
		}
	default:
		m.nodes[m.rand.IntN(len(m.nodes))].elect()
	}
	// Somebody notices that nobody leads, or believes so.
	m.after(m.between(100*time.Millisecond, 2*time.Second), func() {
		if !slices.ContainsFunc(m.nodes, func(q *process) bool { return q.table != nil && m.now >= q.paused }) || m.rand.IntN(2) == 0 {
			m.nodes[m.rand.IntN(len(m.nodes))].elect()
		}
	})
}

// restrict is clients, at whoever leads.
func (m *model) restrict() {
	m.after(m.between(0, 400*time.Millisecond), m.restrict)
	for _, p := range m.nodes {
		if p.table != nil && m.now >= p.paused {
			p.propose()
		}
	}
}

// campaign runs everything at once.
func (m *model) campaign(length time.Duration, enough func() bool) {
	m.after(0, m.nodes[0].elect)
	m.after(time.Second, m.disturb)
	m.after(time.Second, m.restrict)
	m.run(length, enough)
}
