// Package custody is what a custodian's program does: make an identity, take part in a genesis, give a share to an unseal, sign
// the next roster. It has the commands "conclave custodian" and "conclave ceremony".
//
// It trusts no node. Rosters are followed from the hash that the identity pinned, transcripts are recomputed, shares are verified
// before they are stored or given, and a share is encrypted only to exchange keys of a roster that custodians signed. Whatever
// does not verify ends the ceremony for this custodian, with an error that says what was shown.
//
// It is not the cryptography (vault/ceremony), nor the connection (Env).
//
// Functions block until their ceremony needs nothing more of the given identities; they start no goroutine.
package custody
