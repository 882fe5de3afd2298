// Package lease decides for how long a node may use keys without asking anybody, and when the leader may tell a client that
// no node can act against a restriction any more.
//
// A Holder (one per process) sends a Renew to the node it believes to lead and installs the Grant that comes back. A Table
// (one per term, on the leader) answers renewals and evaluates the acknowledgement rule. Authority is a quorum's echo: a
// grant lasts from the moment at which a majority of voters had provably not entered a higher term, so that a leader that was
// paused or cut off can neither grant nor keep a lease for longer than anybody waits for it.
//
// A Watch compares the clocks of one machine, and Peers those of other processes with this one's, for what a clock's rate does not
// explain: that it stood still, or jumped.
//
// It is pure: no goroutine, no I/O, no timer; the clock is injected. It is not the transport of these messages and not the
// guard that checks a lease around every use of a key. The argument why it is safe is in cluster/DESIGN.md.
//
// Locks: Holder and Table are safe for concurrent use; each has one mutex and calls nothing of ours while holding it, except
// the functions passed to Holder.Renew, Holder.Install, Holder.Incumbent, Table.Renew, Table.Withhold and Table.Incumbents, which must not call
// back. Watch and Peers have no lock.
package lease
