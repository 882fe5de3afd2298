// Package store is what stands between raft and its disk: every log entry and every stable value (term and vote too) passes a
// Sealer on its way down and up, and the first failure of the disk is latched, so that the node stops instead of going on.
//
// It is not a database: the bytes rest in whatever raft.LogStore and raft.StableStore it is given (raft-boltdb in a node).
//
// Invariants
//
//   - A record that comes back is the record that was written, at the place where it was written, or an error that is ErrDamaged.
//   - After the first error of a write, or of a read that is not "there is no such record", every further call fails with that
//     error. An fsync that failed may have lost pages that a retry would report as written; so there is no retry.
//
// Locks: Store, Snapshots and Fault are safe for concurrent use and own no goroutine.
package store
