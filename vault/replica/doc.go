// Package replica adapts the state machine to raft: it is the raft.FSM, and the place where applied state becomes visible and
// events become records of the journal.
//
// It decides nothing. The order of what it does is its whole point: apply a batch, append its events to the journal, publish
// the new state by one pointer swap, and only then let raft answer whoever proposed. A snapshot is not written before the
// journal is durable, because raft may then forget the entries from which the events could be made again.
//
// An entry that this version must understand and does not, or a journal that cannot be written, stops the node: Replica
// reports it once to Config.Fatal and applies nothing more.
package replica
