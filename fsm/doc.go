// Package fsm is Conclave's state machine: the key catalog, the nodes, custodians and ceremonies, the certificates and the
// lifecycle log, as one deterministic function of the log of a Raft group.
//
// It is pure: no clock, no random, no I/O, no goroutine, no log line inside Apply. Whoever proposes decides (time, ids, key
// bytes, nonces) and the entry carries the decision; every replica then computes the same state, the same events and the
// same results, refusals included.
//
// It is not raft: vault/replica adapts a Machine to raft.FSM and writes the events to the journal. It is not authorisation
// either: vault decides who may propose. What must hold whoever proposes is enforced here: the state tables of NIST SP 800-57,
// names that are never reused, signatures of custodians, one-time tokens, request ids.
//
// Locks: one goroutine applies; readers take State, an immutable snapshot published once a batch, and never block an apply.
package fsm
