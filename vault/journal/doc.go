// Package journal keeps the records of the lifecycle log on a node's disk: append-only segments of length-prefixed records,
// each with the RFC 6962 leaf hash of its bytes beside it.
//
// It is not the truth: the tree's size and root are part of the replicated state. The journal is what that root is a
// commitment to, and what an auditor recomputes it from. It knows nothing of events; it carries bytes.
//
// Invariants
//
//   - A record that was written is never written again and never changed: a replayed leaf is compared, not stored. Bytes that
//     fail their hash stay where they are, and every read across them reports the leaf, until Replace puts a verified segment
//     in the place of theirs; then they are in the folder evidence.
//   - A torn tail (a record that the end of the file cuts) is no damage: the leaf comes again, into a new segment.
//   - Records need not be consecutive: a node that installed a snapshot has a gap until Fill closes it.
//   - Nothing is durable before Sync has returned.
//   - Memory does not grow with history, but for eight bytes for every 256 records. The hashes of the tree (tree.hashes) and the
//     index by subject (*.idx) are files, derived from the records and made anew where they are missing or do not fit.
//
// A Journal is safe for concurrent use. It starts no goroutine.
package journal
