// Package e2e holds the end-to-end tests: the real program, real processes, real loopback network, real disks. It has no code
// of its own; everything is in its tests.
//
// What they are: a user's view. They call the program like a script does, and speak to nodes with the SDK where a thousand
// processes would be too slow. They read files of a cluster only to damage them or to search them for secrets.
//
// What they are not: unit tests of anything. Rules that can be shown in one package are shown there.
//
// Invariants
//
//   - Every process is a child of the test or of `conclave dev`, ends with the test, and is signalled by its own pid after a look
//     at whose it is.
//   - Nobody sleeps: tests poll with a deadline.
//   - Every cluster that a test leaves in health is checked when it ends: digests equal, lifecycle log verified, and no secret
//     in any file, output, command line or environment.
//
// The program is built once per run; with CONCLAVE_LONG=1 it has the race detector.
package e2e
