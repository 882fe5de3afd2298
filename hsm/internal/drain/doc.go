// Package drain is the part of a token that every backend has in common: counting the operations of a master session and of its
// working copies, so that closing waits for what is under way and nothing starts later; and the turn-taking of those who change
// the session (import, restore, seal, close).
//
// It knows no key and no device: destroying is a function that the backend gives.
//
// Invariants
//
//   - A copy's destroy function runs exactly once, when it was released and its last operation has ended, or with its session.
//   - A session's destroy function runs exactly once, after those of all its copies, by whoever ends its last operation.
//   - Destroy functions run outside every lock of this package, because a device may be slow; until they have returned the session
//     counts as busy.
//
// Locks: Session.mu guards a session and its copies, for a few instructions. The package starts no goroutine.
package drain
