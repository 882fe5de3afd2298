// Package fips is the algorithm gate: it lets a token do what is FIPS-approved and refuses the rest.
//
// It is a gate of our own because that of the Go runtime (GODEBUG=fips140) sees only Go's own packages: secp256k1 and the post-quantum
// signatures pass it unseen, and a device behind PKCS#11 is out of its sight. It speaks of algorithms, not of modules: whether what
// computes them is validated is a property of the build and of the device (FIPS 140-3), and belongs into the operator's records.
//
// Invariants
//
//   - What is not approved is shown as missing, is not generated, and is not opened, although the backend could.
//   - Public halves of what is not approved do not serve either: who verifies or encrypts without the token asks the gate (hsm.Permit).
//   - The node's own keys are P-256, which is approved, and pass.
package fips
