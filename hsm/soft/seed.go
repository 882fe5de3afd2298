package soft

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/conclave-vault/conclave/hsm"
)

// A seed is the secret of a key pair that is not RSA: a scalar on a Weierstrass curve, else the bytes that the standard expands.

// seedSize is the length of a seed in bytes; 0 if alg has none.
func seedSize(alg hsm.Algorithm) int {
	switch alg {
	case hsm.ECDSAP256, hsm.ECDHP256, hsm.ECDSASecp256k1, hsm.Ed25519, hsm.ECDHX25519, hsm.MLDSA44, hsm.MLDSA65, hsm.MLDSA87:
		return 32
	case hsm.ECDSAP384:
		return 48
	case hsm.ECDSAP521:
		return 66
	case hsm.MLKEM768:
		return mlkem.SeedSize // d ‖ z
	}
	return 0
}

// maxDraws bounds the search for a scalar in [1, n-1]. All curve orders are so near a power of two that a second draw has a chance
// of 2^-32 at most: many misses mean a generator that is stuck.
const maxDraws = 8

var errStuckRandom = errors.New("hsm/soft: the random generator gives no usable scalar")

// drawSeed fills seed and derives the public key. A scalar is drawn by rejection: reducing a longer number would do, but needs
// arithmetic where a comparison is enough (FIPS 186-5 A.2.2).
func drawSeed(alg hsm.Algorithm, random io.Reader, seed []byte) (public []byte, err error) {
	for range maxDraws {
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, fmt.Errorf("drawing a %s key: %w", alg, err)
		}
		if alg == hsm.ECDSAP521 {
			seed[0] &= 1 // 521 bits in 66 bytes
		}
		if public, err = publicOf(alg, seed); !errors.Is(err, errMaterial) {
			return public, err
		}
	}
	return nil, errStuckRandom
}

// nistCurve is the curve of crypto/elliptic that scalars of alg are for; nil for others.
func nistCurve(alg hsm.Algorithm) elliptic.Curve {
	switch alg {
	case hsm.ECDSAP256, hsm.ECDHP256:
		return elliptic.P256()
	case hsm.ECDSAP384:
		return elliptic.P384()
	case hsm.ECDSAP521:
		return elliptic.P521()
	}
	return nil
}

// publicOf derives the public key in the form of hsm.MarshalPublicKey. errMaterial if seed is no secret of alg: of another length, or a
// scalar outside [1, n-1].
func publicOf(alg hsm.Algorithm, seed []byte) ([]byte, error) {
	if len(seed) != seedSize(alg) {
		return nil, errMaterial
	}
	switch alg {
	case hsm.ECDSAP256, hsm.ECDSAP384, hsm.ECDSAP521, hsm.ECDHP256:
		key, err := ecdsa.ParseRawPrivateKey(nistCurve(alg), seed)
		if err != nil {
			return nil, errMaterial
		}
		defer wipeECDSA(key)
		return key.PublicKey.Bytes()
	case hsm.ECDSASecp256k1:
		var d secp256k1.ModNScalar
		defer d.Zero()
		if d.SetByteSlice(seed) || d.IsZero() {
			return nil, errMaterial
		}
		return secp256k1.NewPrivateKey(&d).PubKey().SerializeUncompressed(), nil
	case hsm.Ed25519:
		key := ed25519.NewKeyFromSeed(seed)
		defer clear(key)
		return bytes.Clone(key[ed25519.SeedSize:]), nil
	case hsm.ECDHX25519:
		key, err := ecdh.X25519().NewPrivateKey(seed)
		if err != nil { // not the seed's fault: any 32 bytes are one, but a FIPS mode refuses the curve
			return nil, fmt.Errorf("deriving a public key: %w", err)
		}
		return key.PublicKey().Bytes(), nil
	case hsm.MLDSA44:
		public, private := mldsa44.NewKeyFromSeed((*[mldsa44.SeedSize]byte)(seed))
		*private = mldsa44.PrivateKey{}
		return public.Bytes(), nil
	case hsm.MLDSA65:
		public, private := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
		*private = mldsa65.PrivateKey{}
		return public.Bytes(), nil
	case hsm.MLDSA87:
		public, private := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
		*private = mldsa87.PrivateKey{}
		return public.Bytes(), nil
	case hsm.MLKEM768:
		key, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			return nil, fmt.Errorf("deriving a public key: %w", err)
		}
		return key.EncapsulationKey().Bytes(), nil
	}
	return nil, fmt.Errorf("%w: public keys of %q", hsm.ErrUnsupported, alg)
}
