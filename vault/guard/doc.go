// Package guard is the only way to a private key. Every use passes it twice: before the HSM is called, and, decisively, after
// the HSM has answered and before the result leaves the node.
//
// A check loads the lease, then the key's fence, then the state, decides from that state alone, and reads the clock last. The order is
// the proof: if the lease is still valid when the clock is read, it was valid at the moment the state was loaded, whatever pauses lay
// between; and a state loaded under a valid lease contains every restriction that was acknowledged before, except those whose fence
// was up when it was looked for, because a fence goes down only when the state behind it can be loaded.
//
// A negative answer (not found, not active, denied) is given only after this node has applied what the leader had committed
// when the request came; if it cannot ask, the answer is ErrUnavailable.
//
// Between the two checks stands the charge: what counts against a use budget is spent from a block in this process's memory, before the
// HSM is called. A block may be spent only under a state that has it; the second check looks again.
//
// What leaves is recorded in the usage log (release.go). Where its class demands that the record is on the disk first, the deciding check
// comes after that: an fsync between the check and the release would be a time in which a restriction is acknowledged and the result leaves.
//
// It is not the state table (fsm.Permit) and not the roles (vault/policy); it is where they are asked, and where working copies
// of keys are kept and dropped.
//
// Locks: the cache and the ledger have a mutex each, never held while the HSM works or the cluster is asked. Spending takes none: counters
// are atomic, and whoever replaces a block holds its account. Nothing here starts a goroutine: refills go to Config.Background.
package guard
