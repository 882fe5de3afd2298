package fsm

import "slices"

// UseBlock is a right to use a key that a process holds in its memory. All of it that is not settled counts as spent.
type UseBlock struct {
	Node     NodeID
	Boot     string
	Opened   uint64 // index of the entry that opened it: its name
	Seq      uint64 // of the last reservation for it
	Reserved Amount
	Settled  Amount // what the process has reported as spent, and the account has taken over
	// Void is the index of the restriction that ended it; 0: none did. The process may not spend of it under a state that says so,
	// and all of it counts until the process says what it spent.
	Void uint64
}

// Left is what counts as spent although nobody has reported it.
func (b UseBlock) Left() Amount { return b.Reserved.minus(b.Settled) }

// UseAccount is what was spent of a limit, and what is reserved. Blocks is shared between states: never modified in place.
type UseAccount struct {
	Spent  Amount
	Blocks []UseBlock
}

// Total is all that counts against the limit.
func (a UseAccount) Total() Amount {
	sum := a.Spent
	for _, b := range a.Blocks {
		sum = sum.plus(b.Left())
	}
	return sum
}

// Block finds the one of a process.
func (a UseAccount) Block(node NodeID, boot string) (UseBlock, bool) {
	i := a.find(node, boot)
	if i < 0 {
		return UseBlock{}, false
	}
	return a.Blocks[i], true
}

func (a UseAccount) find(node NodeID, boot string) int {
	return slices.IndexFunc(a.Blocks, func(b UseBlock) bool { return b.Node == node && b.Boot == boot })
}

// settled takes over what a process says it has spent of block i, which is cumulative, so hearing it twice changes nothing.
func (a UseAccount) settled(i int, used Amount) UseAccount {
	b := a.Blocks[i]
	a.Spent = a.Spent.plus(used.minus(b.Settled))
	b.Settled = b.Settled.max(used)
	b.Reserved = b.Reserved.max(b.Settled)
	return a.with(i, b)
}

// closed frees what is left of block i.
func (a UseAccount) closed(i int) UseAccount {
	a.Blocks = slices.Delete(slices.Clone(a.Blocks), i, i+1)
	if len(a.Blocks) == 0 {
		a.Blocks = nil
	}
	return a
}

// lost takes what is left of block i for spent: the process that could tell is gone.
func (a UseAccount) lost(i int) UseAccount {
	a.Spent = a.Spent.plus(a.Blocks[i].Left())
	return a.closed(i)
}

func (a UseAccount) with(i int, b UseBlock) UseAccount {
	a.Blocks = slices.Clone(a.Blocks)
	a.Blocks[i] = b
	return a
}

func (a Amount) plus(b Amount) Amount {
	return Amount{a.Operations + b.Operations, a.Bytes + b.Bytes}
}

// minus is never below zero.
func (a Amount) minus(b Amount) Amount {
	return Amount{a.Operations - min(a.Operations, b.Operations), a.Bytes - min(a.Bytes, b.Bytes)}
}

func (a Amount) max(b Amount) Amount {
	return Amount{max(a.Operations, b.Operations), max(a.Bytes, b.Bytes)}
}

// capped is a, and no more than grant of what limit limits.
func (a Amount) capped(grant, limit Amount) Amount {
	if limit.Operations != 0 {
		a.Operations = min(a.Operations, grant.Operations)
	}
	if limit.Bytes != 0 {
		a.Bytes = min(a.Bytes, grant.Bytes)
	}
	return a
}

// within keeps a sum of amounts from wrapping.
func (a Amount) within(most uint64) bool { return a.Operations <= most && a.Bytes <= most }

// asking is one dimension of a reservation.
type asking struct {
	limit             uint64 // 0: not limited
	total             uint64 // what counts already, the process's own block included
	own               uint64 // what the process has in hand
	need, waits, want uint64
	nodes             uint64
	exact             bool
}

// grant is what the process gets more. A block is at the most what remains / (4 × nodes), so that all nodes together have at the most a
// quarter of it in reserve, and no restart loses more than a part of that; where this is less than what waits, exactly that is granted.
// False: the first operation that waits does not fit into the limit.
func (q asking) grant() (uint64, bool) {
	if q.limit == 0 {
		return 0, true
	}
	remains := q.limit - min(q.limit, q.total)
	if q.need > q.own+remains {
		return 0, false
	}
	aim := q.waits
	if !q.exact {
		aim = max(aim, min(q.want, (remains+q.own)/(4*q.nodes)))
	}
	return min(aim-min(aim, q.own), remains), true
}
