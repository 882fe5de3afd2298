// Package hsm is the port through which a node reaches its hardware security module: what a token is, which algorithms it
// has, and the wrapped form in which key material leaves it.
//
// It is not a backend: those are hsm/soft (embedded, no hardware boundary) and, where cgo is available, hsm/pkcs11. It is not
// the way to use a key either: that is hsm/keyuse, a package of its own so that one import test can show who may sign.
//
// Invariants
//
//   - Key material leaves a token only wrapped (RFC 5649) with a binding MAC over everything RFC 5649 does not cover.
//   - The wrapped form is the same for every backend, so that a cluster may mix them.
//   - Secret types cannot print themselves and have Wipe.
//   - The package imports nothing else of this project.
package hsm
