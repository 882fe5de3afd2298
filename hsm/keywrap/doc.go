// Package keywrap is AES key wrap with padding: RFC 5649, which is KWP of NIST SP 800-38F, over the block transformation W of
// RFC 3394.
//
// It is deterministic and has no associated data: what a blob belongs to must be bound elsewhere (hsm.BindingMAC). The PKCS#11
// mechanism of the same name (CKM_AES_KEY_WRAP_PAD) is this algorithm on some devices and another one on others.
//
// Two forms of wrapping to a public key stand on it, for material on its way into a token or out of it: WrapRSA and WrapECDH.
//
// Invariants
//
//   - Every failure of Unwrap is ErrUnwrap, and the integrity check runs in time that depends on the length of the blob only:
//     neither text nor clock tells which byte was wrong.
//   - A failed Unwrap leaves no plaintext behind: its buffer is cleared.
//   - The functions are pure and safe for concurrent use.
package keywrap
