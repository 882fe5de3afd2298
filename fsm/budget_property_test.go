package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

// The rules of the game in which budgets must hold: what nodes do with blocks, and what a leader may say of barriers.
//
// A process spends from the block that its own state lets it spend, and that state may be old, but not older than a restriction that is
// known to be in force. Entries that it proposes arrive late, in any order, more than once, or never.

// spender is a node with its present process.
type spender struct {
	id      fsm.NodeID
	boots   int
	view    *fsm.State // what this node has applied
	asleep  bool       // it has no lease
	seq     uint64
	opened  uint64 // its block
	used    fsm.Amount
	closed  bool // it spends no more of it
	nothing bool // the block is one that it never knew
}

func (n *spender) boot() string { return fmt.Sprintf("%s-%d", n.id, n.boots) }

type game struct {
	*stage
	rt     *rapid.T
	key    fsm.KeyID
	nodes  []*spender
	flying []fsm.Command
	limit  fsm.UseLimit
	// The model: what was spent in the window of the log's time, and what must not be exceeded: the limit, and until a lower one is in
	// force the higher one before.
	own, class spending
	allowed    map[uint64]fsm.Amount // by the restriction that ended it; 0: the present limit
	budget     fsm.Budget            // of the class, beside the limit; zero: none
}

// spending is what was spent in a window.
type spending struct {
	window int64
	fsm.Amount
}

func (s *spending) add(at time.Time, period time.Duration, bytes uint64) {
	if w := at.UnixMilli() / period.Milliseconds(); w != s.window {
		*s = spending{window: w}
	}
	s.Operations++
	s.Bytes += bytes
}

const playPeriod = time.Hour

func newGame(t testing.TB, rt *rapid.T, exact, classed bool) *game {
	g := &game{rt: rt, allowed: map[uint64]fsm.Amount{}}
	g.limit = fsm.UseLimit{Amount: fsm.Amount{Operations: 20, Bytes: 200}, Per: playPeriod, Exact: exact}
	g.stage, g.key = budgeted(t, "ed25519", g.limit)
	g.raised()
	if classed {
		class, _ := g.m.State().Class(fsm.ClassStandard)
		g.budget = fsm.Budget{Operations: 60, Bytes: 600, Period: 3 * playPeriod}
		class.Name, class.Budget, class.Exact = "cards", g.budget, exact
		g.must(fsm.CreateClass{Class: class})
		g.must(fsm.SetKeyClass{Name: "k", Class: "cards"})
		g.settle()
	}
	g.allowed[0] = g.limit.Amount
	for _, id := range []fsm.NodeID{"n1", "n2", "n3"} {
		g.nodes = append(g.nodes, &spender{id: id, boots: 1, view: g.m.State()})
	}
	return g
}

// spend is one operation, as a guard does it.
func (g *game) spend(n *spender, bytes uint64) {
	b, usable := n.view.UsableBlock(g.key, 0, n.id, n.boot())
	if n.asleep || !usable || n.closed || b.Opened != n.opened {
		return
	}
	next := fsm.Amount{Operations: n.used.Operations + 1, Bytes: n.used.Bytes + bytes}
	if next.Operations > b.Reserved.Operations || next.Bytes > b.Reserved.Bytes {
		return
	}
	n.used = next
	g.own.add(g.m.State().Time(), playPeriod, bytes)
	if p := g.budget.Period; p != 0 {
		g.class.add(g.m.State().Time(), p, bytes)
		if g.class.Operations > g.budget.Operations || bytes > 0 && g.class.Bytes > g.budget.Bytes {
			g.rt.Fatalf("%s spends %+v in a window in which the class allows %+v", n.id, g.class.Amount, g.budget)
		}
	}
	var most fsm.Amount
	for _, a := range g.allowed {
		most = fsm.Amount{Operations: max(most.Operations, a.Operations), Bytes: max(most.Bytes, a.Bytes)}
	}
	if g.own.Operations > most.Operations || bytes > 0 && g.own.Bytes > most.Bytes {
		g.rt.Fatalf("%s spends %+v in a window in which %+v is allowed", n.id, g.own.Amount, most)
	}
}

// look takes the block over that the state has for this process, if it is another one than it knows.
func (n *spender) look(key fsm.KeyID) {
	u := n.view.UseRecord(key)
	b, has := u.Limited.Block(n.id, n.boot())
	switch {
	case has && b.Opened == n.opened:
		_, usable := n.view.UsableBlock(key, 0, n.id, n.boot())
		n.closed = n.closed || !usable
	case has:
		n.opened, n.used, n.closed, n.nothing = b.Opened, fsm.Amount{}, false, true
	case n.opened != 0 && n.view.Applied() > n.opened:
		n.opened, n.used, n.closed = 0, fsm.Amount{}, false
	}
}

func (g *game) ask(n *spender) {
	n.look(g.key)
	n.seq++
	g.flying = append(g.flying, fsm.ReserveUse{
		Node: n.id, Boot: n.boot(), Key: g.key, Seq: n.seq, Opened: n.opened, Used: n.used, Final: n.closed,
		Need:    fsm.Amount{Operations: 1, Bytes: uint64(rapid.IntRange(0, 30).Draw(g.rt, "bytes"))},
		Waiting: fsm.Amount{Operations: uint64(rapid.IntRange(0, 12).Draw(g.rt, "waiting"))},
		Want:    fsm.Amount{Operations: uint64(rapid.IntRange(0, 50).Draw(g.rt, "want")), Bytes: 500},
	})
}

func (g *game) giveBack(n *spender) {
	n.look(g.key)
	n.closed = true
	g.flying = append(g.flying, fsm.ReturnUse{Node: n.id, Boot: n.boot(), Blocks: []fsm.UsedBlock{{Key: g.key, Opened: n.opened, Used: n.used}}})
}

// arrive applies something that was proposed, and sometimes keeps it to come again.
func (g *game) arrive() {
	if len(g.flying) == 0 {
		return
	}
	i := rapid.IntRange(0, len(g.flying)-1).Draw(g.rt, "which")
	c := g.flying[i]
	if rapid.IntRange(0, 3).Draw(g.rt, "again") != 0 {
		g.flying = append(g.flying[:i:i], g.flying[i+1:]...)
	}
	g.deliver(c)
}

func (g *game) deliver(c fsm.Command) {
	g.applyEntry(fsm.Entry{Command: c, Actor: "spiffe://demo/node/n1"})
}

func (g *game) change() {
	l, most := g.limit, 60
	if g.budget != (fsm.Budget{}) {
		most = 20 // a third
	}
	l.Operations, l.Bytes = uint64(rapid.IntRange(1, most).Draw(g.rt, "operations")), uint64(rapid.IntRange(1, 10*most).Draw(g.rt, "bytes"))
	allowed, before := l.Amount, g.allowed[0]
	if g.budget != (fsm.Budget{}) && rapid.IntRange(0, 2).Draw(g.rt, "none") == 0 {
		l, allowed = fsm.UseLimit{}, fsm.Amount{Operations: g.budget.Operations, Bytes: g.budget.Bytes}
	}
	r := g.must(fsm.SetBudget{Name: "k", Limit: l})
	g.allowed[0] = allowed
	if l.Per != 0 {
		g.limit = l
	}
	if r.Barrier != 0 {
		g.allowed[r.Barrier] = before
	}
}

// complete is the leader's part: every node has applied the restriction, or has no lease.
func (g *game) complete() {
	for _, b := range g.m.State().PendingBarriers() {
		for _, n := range g.nodes {
			if !n.asleep && n.view.Applied() < b.Index {
				return
			}
		}
		g.must(fsm.CompleteBarrier{Restriction: b.Index})
		delete(g.allowed, b.Index)
	}
}

// wake gives a lease to a node, which first applies every restriction there is.
func (g *game) wake(n *spender) { n.view, n.asleep = g.m.State(), false }

func (g *game) restart(n *spender) {
	n.boots++
	n.seq, n.opened, n.used, n.closed = 0, 0, fsm.Amount{}, false
	g.must(fsm.RecordNodeUnsealed{Node: n.id, Boot: n.boot(), Generation: 1, Seen: g.index})
	g.wake(n)
}

func (g *game) step() {
	n := g.nodes[rapid.IntRange(0, 2).Draw(g.rt, "node")]
	switch rapid.IntRange(0, 20).Draw(g.rt, "step") {
	case 0, 1, 2:
		g.ask(n)
	case 17, 18, 19, 20: // as it goes when nothing is in the way
		g.ask(n)
		g.deliver(g.flying[len(g.flying)-1])
		n.view = g.m.State()
		n.look(g.key)
	case 3, 4, 5, 6:
		g.arrive()
	case 7, 8, 9:
		n.view = g.m.State()
		n.look(g.key)
	case 10:
		g.giveBack(n)
	case 11:
		g.change()
	case 12:
		g.complete()
	case 13:
		if n.asleep {
			g.wake(n)
		} else {
			n.asleep = true
		}
	case 14:
		g.restart(n)
	case 15:
		if r, _ := g.apply(fsm.LapseUse{Node: n.id}); r.Code != fsm.CodeOK {
			g.rt.Fatal(r)
		}
	case 16:
		g.clock = g.m.State().Time().Add(time.Duration(rapid.IntRange(-5, 40).Draw(g.rt, "minutes")) * time.Minute) // another leader's may be behind
	}
	for range rapid.IntRange(0, 20).Draw(g.rt, "uses") {
		g.spend(g.nodes[rapid.IntRange(0, 2).Draw(g.rt, "who")], uint64(rapid.IntRange(0, 9).Draw(g.rt, "size")))
	}
}

// TestBudgetsAreNeverExceeded under any interleaving of reservations, returns, restarts, lapses, lowering, raising and time, with
// nodes whose states lag and entries that come late, in another order, and twice; of a key alone, and of one whose class has a budget, too, which
// comes into force each time the key's own limit is ended.
func TestBudgetsAreNeverExceeded(t *testing.T) {
	most := fsm.Amount{}
	rapid.Check(t, func(rt *rapid.T) {
		g := newGame(t, rt, rapid.Bool().Draw(rt, "exact"), rapid.Bool().Draw(rt, "class"))
		for range rapid.IntRange(1, 150).Draw(rt, "steps") {
			g.step()
		}
		most.Operations = max(most.Operations, g.own.Operations)
	})
	if most.Operations < 10 {
		t.Errorf("at most %d operations were done: the game proves nothing", most.Operations)
	}
}
