// Package ceremony is the cryptography of Conclave's ceremonies: the shared master secret and its verifiable shares, the
// commitments and transcripts of a genesis, values sealed to a node's exchange key, shares sealed to a custodian, and the
// identity that a custodian keeps in a file.
//
// It is used at both ends: by nodes, and by the programs of custodians, which trust no node. It is not the ceremony's course:
// phases, verdicts and who may do what are commands of fsm, and the conversation is led by vault on one side and the custodian's
// program on the other.
//
// Invariants
//
//   - A share, a secret and an identity cannot print themselves, and each has Wipe.
//   - Every hash, signature and sealed value is over a framed message: a domain, then each field with its length, so that no two
//     meanings share their bytes.
//   - Decoders are total and strict: one encoding per value, a limit on every size.
//   - What comes from outside and fails gives one error per kind, which does not tell how far the check went.
//
// There are no locks and no goroutines: values belong to their caller.
package ceremony
