// Package cluster joins processes into one replicated whole: a Raft group over mutual TLS, calls between nodes, serving leases,
// and gossip as a source of hints. It carries bytes and a raft.FSM and knows nothing of what they mean.
//
// A Node is made with New, which opens the stores and the port and decides nothing, and lives inside Run, which owns every
// goroutine and returns when its context ends or the node must stop.
//
// It is not the state machine, not the vault and not a client's way in. Who belongs to the cluster is decided by the replicated
// state (Config.Members); this package makes raft's configuration follow it.
//
// Invariants
//
//   - Every byte from the network but gossip arrives over TLS 1.3. Raft and node calls come only from a certificate of the cluster's CA
//     with exactly one URI, spiffe://CLUSTER/node/ID.
//   - What comes in is followed by its lengths before a library decodes it (raftwire.go, gate, gossipmessage.go); who is refused is
//     one line in the log, or part of a count.
//   - Decisions use the state machine's own applied index (Config.Applied), never raft's, which runs ahead of it.
//   - Nothing waits for a raft future without also waiting for a context: raft never answers those queued at its shutdown.
//   - The first failure of the disk ends Run. Nothing is retried.
//   - Gossip never has authority.
//
// Locks: a Node is safe for concurrent use. No lock is held while calling the network. Of Config's functions Applied, Floor and
// Members are called under locks of the lease package, and must not call back.
package cluster
