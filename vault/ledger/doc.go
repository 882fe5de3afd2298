// Package ledger is what can be proven of the lifecycle log to somebody who trusts no node: signed checkpoints, proofs that a
// record is in the tree and that one tree continues another, and exports that are verified without a cluster.
//
// It reads no disk and asks nobody. vault makes proofs with it from the journal and signs with the node's key; the command line
// verifies with it, on any machine, knowing nothing but the cluster's authority or the nodes' keys.
//
// The forms are public ones: RFC 6962 trees (golang.org/x/mod/sumdb/tlog), C2SP tlog-checkpoint text in C2SP signed notes
// (golang.org/x/mod/sumdb/note) with ECDSA P-256 signatures (type 0x02: the key's id is the SHA-256 of its SubjectPublicKeyInfo,
// the signature is ASN.1 DER over the SHA-256 of the text). Every decoder is total and bounded.
package ledger
