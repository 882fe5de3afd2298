// Package vault is what a node knows and does about keys: it authorises callers, generates and uses keys through the node's
// HSM, proposes commands to the replicated state machine, waits for restrictions to be in force, and carries the ceremonies
// that unseal the cluster.
//
// It is not transport (no gRPC, no certificates of connections: a caller arrives here as a verified policy.Caller) and it is not
// consensus: raft, membership and leases are behind the ports Proposer and Peers, which this package owns and cmd wires.
//
// The parts
//
//	write.go, leader.go   a command's way: entry node → leader → log, and back
//	barrier.go            acknowledging restrictions
//	keys.go, crypto.go    the catalog and the use of keys
//	budget.go             how much keys may be used, and when they were
//	genesis.go, unseal.go, roster.go, seal.go   ceremonies and the seal
//	admission.go, certificates.go, secrets.go   nodes, clients, and the cluster's own keys
//	describe.go           what a node says of itself: its token, its addresses
//	status.go, records.go what can be seen
//	peers.go              what nodes ask of each other
//
// Invariants: nothing beside the replicated state answers "allowed"; no key is used but through vault/guard; a secret that
// passes through here is wiped by whoever made it.
//
// Goroutines: New starts none; Run owns them all and returns when they have ended.
package vault
