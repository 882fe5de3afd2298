package ceremony

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
)

// Purpose says what is sealed to a node, so that a value of one kind never opens as another.
type Purpose string

const (
	PurposeShare          Purpose = "share"           // a custodian's share, for an unseal
	PurposeEntropy        Purpose = "entropy"         // a custodian's contribution, for a genesis
	PurposeClusterSecrets Purpose = "cluster-secrets" // cluster CA and gossip key, from node to node
)

// Info is the context that a sealed value is bound to: it opens only under the same Info. Share and entropy need every field;
// cluster secrets have neither Ceremony nor Custodian.
type Info struct {
	ClusterID string
	Ceremony  fsm.CeremonyID
	Node      fsm.NodeID
	Custodian fsm.CustodianName
	Purpose   Purpose
}

func (i Info) complete() bool {
	ceremony := i.Ceremony != "" && i.Custodian != ""
	switch i.Purpose {
	case PurposeShare, PurposeEntropy:
		return i.ClusterID != "" && i.Node != "" && ceremony
	case PurposeClusterSecrets:
		return i.ClusterID != "" && i.Node != "" && i.Ceremony == "" && i.Custodian == ""
	default:
		return false
	}
}

func (i Info) frame() frame {
	return newFrame("conclave/v1/ceremony/hpke").text(string(i.Purpose)).text(i.ClusterID).text(string(i.Ceremony)).
		text(string(i.Node)).text(string(i.Custodian))
}

const (
	// maxSealedPlaintextBytes is far above the largest value (cluster secrets, under 2 KiB), and keeps a hostile bundle small.
	maxSealedPlaintextBytes = 16 << 10
	exchangeKeySize         = 65 // uncompressed P-256 point; also HPKE's encapsulated key
	aeadTagSize             = 16
	sealedOverhead          = exchangeKeySize + aeadTagSize
)

// The suite is what a token-held P-256 key can take part in (an HSM has no X25519 agreement that all vendors offer), with
// FIPS-approved parts only: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180).
func suite() (hpke.KEM, hpke.KDF, hpke.AEAD) {
	return hpke.DHKEM(ecdh.P256()), hpke.HKDFSHA256(), hpke.AES256GCM()
}

// SealToNode encrypts plaintext to a node's exchange key (65 bytes, an uncompressed P-256 point), bound to info. It does not say
// who sealed: a bundle's signature does that.
func SealToNode(exchangeKey []byte, info Info, plaintext []byte) ([]byte, error) {
	if !info.complete() {
		return nil, fmt.Errorf("%w: the context is incomplete", ErrSeal)
	}
	if len(plaintext) == 0 || len(plaintext) > maxSealedPlaintextBytes {
		return nil, fmt.Errorf("%w: %d bytes, 1 to %d can be sealed", ErrSeal, len(plaintext), maxSealedPlaintextBytes)
	}
	kem, kdf, aead := suite()
	if len(exchangeKey) != exchangeKeySize {
		return nil, fmt.Errorf("%w: an exchange key of %d bytes", ErrSeal, len(exchangeKey))
	}
	key, err := kem.NewPublicKey(exchangeKey)
	if err != nil {
		return nil, fmt.Errorf("%w: the exchange key of node %s: %w", ErrSeal, info.Node, err)
	}
	sealed, err := hpke.Seal(key, kdf, aead, info.frame(), plaintext)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return sealed, nil
}

// OpenAtNode decrypts what SealToNode sealed under the same info. ErrOpen for every failure. The caller wipes the result.
func OpenAtNode(key ecdh.KeyExchanger, info Info, sealed []byte) ([]byte, error) {
	if !info.complete() || len(sealed) <= sealedOverhead || len(sealed) > maxSealedPlaintextBytes+sealedOverhead {
		return nil, ErrOpen
	}
	private, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil || key.Curve() != ecdh.P256() {
		return nil, ErrOpen
	}
	_, kdf, aead := suite()
	plaintext, err := hpke.Open(private, kdf, aead, info.frame(), sealed)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}
