// Package compose tests the cluster in containers: it follows the README's section "Run it in containers" word by word, then cuts a
// node off, kills the leader and restarts everything. It has no code of its own; everything is in its tests.
//
// It needs a Docker engine, and fails without one: scripts/test.sh decides whether it is run, and says so if it is not.
//
// Invariants
//
//   - Everything in the engine carries a project name of the run's own, and is gone when the test ends, however it ends. Nothing
//     else in the engine is touched.
//   - Traffic stays on the host's loopback and on networks that the run made.
//   - Nobody sleeps: tests poll with a deadline.
package compose
