package lease

import "time"

// Kind is a sort of lease. Each has its own length and its own entry in the leader's table.
type Kind uint8

const (
	Serving   Kind = iota // Config.D: what a node needs for anything but what follows
	Available             // Config.Available, longer: for keys whose class puts availability first
	kinds
)

// Durations has one entry for each Kind.
type Durations [kinds]time.Duration

// Renew asks the leader for a lease and carries the evidence that lets it grant.
type Renew struct {
	Node        string // must be the authenticated peer's name
	Boot        string // random id of the holder's process
	Incarnation uint64 // how many processes the node's storage has seen, this one included; 0: not counted
	Seq         uint64 // of this renewal within Boot, from 1
	Term        uint64 // the holder's raft term, read AFTER the echo was
	Applied     uint64 // the holder's own applied index
	Echo        Echo
	Uptime      time.Duration // since the process began, on the holder's clock
	Remaining   Durations     // what its leases have left, read AFTER the term: no older one will be installed any more
	Available   bool          // whether it wants a lease of that kind too
	Since       uint64        // index at which its process began to serve as the node, if a leader was known to have it; else 0
	Settled     time.Duration // since that was known, on the holder's clock
}

// Echo names the last grant that the holder received, installed or not. The zero Echo names none.
type Echo struct {
	Term     uint64
	GrantSeq uint64
}

// Grant answers a Renew.
type Grant struct {
	Boot      string // of the Renew
	Seq       uint64 // of the Renew
	Term      uint64 // of the leader
	GrantSeq  uint64 // unique within Term, from 1
	Duration  time.Duration
	Available time.Duration // of the longer lease; zero unless asked for
	Floor     uint64        // index of the last restriction that the leader's state contains
	Withheld  bool          // the node was ordered to serve nothing: there is no lease to ask for again soon
}

// Zero reports a grant of nothing: the leader lacks fresh evidence from a majority, or withholds it. It is worth an echo all the same.
func (g Grant) Zero() bool { return g.Duration <= 0 }
