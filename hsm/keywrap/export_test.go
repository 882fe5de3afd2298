package keywrap

import "crypto/cipher"

// The block transformation, for the vectors of RFC 3394 (KW) that have another initial value.
func WrapW(b cipher.Block, buf []byte)   { wrap(b, buf) }
func UnwrapW(b cipher.Block, buf []byte) { unwrap(b, buf) }

// The key derivation between the layers of WrapECDH, for the vectors of NIST.
var (
	X963KDF    = x963KDF
	SharedInfo = sharedInfo
)
