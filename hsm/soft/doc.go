// Package soft is the embedded token: hsm.Token and keyuse.Port on Go's standard cryptography, and on two libraries for what it lacks
// (secp256k1 by dcrec, ML-DSA by circl), with a keystore file sealed under the PIN. It is the default of a node and needs nothing
// installed.
//
// It is not a hardware boundary, and Info says so: whoever reads the memory of the process reads its keys. What it does about
// that is best effort. The file key, the masters and HMAC keys rest in pages that are locked and left out of core dumps where the
// system allows. Other private keys live, while they are open, in objects of Go's crypto packages, which cannot be moved there;
// what can be overwritten is overwritten when a copy dies. A build with GOEXPERIMENT=runtimesecret (linux/amd64, linux/arm64) runs all that
// handles secrets in runtime/secret.Do: then the rest is erased too, when the collector finds it dead.
//
// Invariants
//
//   - The keystore file is replaced as a whole, fsynced and renamed, or not at all; never written in place.
//   - One process has a token open: a lock on the file beside the keystore enforces it.
//   - A working copy belongs to one master session and dies with it. A session dies when it was told to and its last operation
//     has ended, whoever waits for that.
//   - A kept master is in the file only: while sealed, memory holds none.
//
// Locks: drain.Turns serialises what changes the session or the file, for as long as a drain may take; see hsm/internal/drain. The
// package starts no goroutine.
package soft
