package ceremony

import (
	"crypto/subtle"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
)

// CommitEntropy is a custodian's commitment to its contribution. The contribution's 256 bits hide it, the hash binds it, and the
// other fields keep a commitment from being copied into another ceremony or under another name.
func CommitEntropy(c fsm.CeremonyID, nonce []byte, who fsm.CustodianName, entropy [EntropySize]byte) [32]byte {
	f := newFrame("conclave/v1/ceremony/entropy").text(string(c)).bytes(nonce).text(string(who)).bytes(entropy[:])
	defer clear(f)
	return f.sum()
}

// CheckEntropy tells whether entropy is what the custodian committed to. ErrEntropy.
func CheckEntropy(commitment []byte, c fsm.CeremonyID, nonce []byte, who fsm.CustodianName, entropy []byte) error {
	if len(entropy) != EntropySize {
		return fmt.Errorf("%w: %d bytes, not %d", ErrEntropy, len(entropy), EntropySize)
	}
	want := CommitEntropy(c, nonce, who, [EntropySize]byte(entropy))
	if subtle.ConstantTimeCompare(want[:], commitment) != 1 {
		return fmt.Errorf("%w: custodian %s", ErrEntropy, who)
	}
	return nil
}

// DealerCommitment is the dealing node's commitment to its HSM's random, made before any custodian commits, so that the node
// cannot choose its part after it saw theirs.
func DealerCommitment(c fsm.CeremonyID, nonce []byte, dealer fsm.NodeID, random []byte) [32]byte {
	f := newFrame("conclave/v1/ceremony/dealer").text(string(c)).bytes(nonce).text(string(dealer)).bytes(random)
	defer clear(f)
	return f.sum()
}

// CheckDealer tells whether random is what the dealing node committed to. ErrEntropy.
func CheckDealer(commitment []byte, c fsm.CeremonyID, nonce []byte, dealer fsm.NodeID, random []byte) error {
	want := DealerCommitment(c, nonce, dealer, random)
	if subtle.ConstantTimeCompare(want[:], commitment) != 1 {
		return fmt.Errorf("%w: dealing node %s", ErrEntropy, dealer)
	}
	return nil
}
