package ceremony

import (
	"crypto/ed25519"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
)

// NodeShare is one custodian's share, sealed to one node.
type NodeShare struct {
	Node   fsm.NodeID
	Sealed []byte
}

// BundleMessage is what a custodian signs when it hands over its share for every node: the relaying node can then neither add,
// drop, swap nor keep a part for another ceremony without being seen by the nodes that get theirs. The order counts.
func BundleMessage(c fsm.CeremonyID, who fsm.CustodianName, shares []NodeShare) []byte {
	f := newFrame("conclave/v1/ceremony/bundle").text(string(c)).text(string(who)).number(len(shares))
	for _, s := range shares {
		f = f.text(string(s.Node)).bytes(s.Sealed)
	}
	return f
}

// VerifyBundle checks a bundle's signature with the custodian's signing key of the roster. ErrSignature.
func VerifyBundle(signingKey []byte, c fsm.CeremonyID, who fsm.CustodianName, shares []NodeShare, signature []byte) error {
	if err := VerifySignature(signingKey, BundleMessage(c, who, shares), signature); err != nil {
		return fmt.Errorf("the bundle of custodian %s: %w", who, err)
	}
	return nil
}

// RevealMessage is what a custodian signs when it sends its contribution to the dealing node: without it anybody could send junk
// in its name, and have the ceremony aborted and the custodian blamed.
func RevealMessage(c fsm.CeremonyID, nonce []byte, who fsm.CustodianName, sealed []byte) []byte {
	return newFrame("conclave/v1/ceremony/reveal").text(string(c)).bytes(nonce).text(string(who)).bytes(sealed)
}

// VerifySignature checks a custodian's Ed25519 signature. A key of the wrong size is a failure, not a panic. ErrSignature.
func VerifySignature(signingKey, message, signature []byte) error {
	if len(signingKey) != ed25519.PublicKeySize || !ed25519.Verify(signingKey, message, signature) {
		return ErrSignature
	}
	return nil
}
