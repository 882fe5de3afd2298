package hsm

import (
	"context"
	"crypto"
	"crypto/ecdh"
)

// Token is one opened HSM token: the root session of a node. It exists from the start of a process to its end, sealed or not.
//
// A Token is safe for concurrent use. The caller owns it and calls Close exactly once, after every other call has returned.
// Using keys is not part of it: see hsm/keyuse.
type Token interface {
	// Info says what the token is, in words for operators and for the minutes of ceremonies.
	Info() Info

	// Capabilities lists what the token can do, one row per algorithm of Algorithms, probed and not assumed.
	Capabilities() []Capability

	// Random fills b from the token's generator. It never returns short.
	Random(b []byte) error

	// Identity is the node's P-256 signing key: the private half of the node's certificate. It works while sealed.
	Identity() crypto.Signer

	// Exchange is the node's P-256 key agreement key, the target of HPKE for shares and sealed cluster secrets. It works
	// while sealed.
	Exchange() ecdh.KeyExchanger

	// ImportMaster opens the master session: it imports the three keys of m, verifies them by a known answer, and wipes
	// nothing (m stays the caller's, who wipes it). With persist the keys are kept as token objects, so that RestoreMaster
	// finds them after a restart. A second import replaces the first, after draining it.
	ImportMaster(ctx context.Context, m *Master, persist *Persistence) error

	// RestoreMaster opens the master session from the token objects that ImportMaster kept, and returns what it was told then.
	// ErrNoMaster if there are none.
	RestoreMaster(ctx context.Context) (Persistence, error)

	// Master says which master generation is open; ErrSealed if none.
	Master() (MasterInfo, error)

	// Generate makes a new key inside the token and returns it wrapped under the open master. The caller chose b's
	// ClusterID, KeyID, Version and Algorithm; Generate fills Generation and PublicKey. ErrSealed, ErrUnsupported.
	Generate(ctx context.Context, b Binding, exportable bool) (WrappedKey, error)

	// Seal drains: it refuses new work, waits for the operations under way (or ctx), then closes the master session, which
	// destroys the master objects and every working copy. With forget, masters kept by ImportMaster are destroyed too.
	// Sealing a sealed token is not an error.
	Seal(ctx context.Context, forget bool) error

	// Close seals and ends the root session.
	Close() error
}

// Info describes a token to people.
type Info struct {
	Backend      string // "soft" or "pkcs11"
	Model        string // for example "conclave soft token" or the CK_TOKEN_INFO model
	Library      string // version of the library or module behind it
	Serial       string // stable for the life of the token
	HardwareSafe bool   // true only where a hardware boundary keeps keys from the host
}

// Persistence travels with a master that is kept across restarts.
type Persistence struct {
	ClusterID  string
	Generation uint32
	// UnsealedAt is the log index at which the node was unsealed. A seal order with a higher index forbids restoring.
	UnsealedAt uint64
}

// MasterInfo describes the open master session. Check values identify keys without revealing them.
type MasterInfo struct {
	ClusterID  string
	Generation uint32
	Check      CheckValues
}

// Gate is a token of a node on which some algorithms serve for nothing, not even by their public halves (hsm/fips).
type Gate interface {
	// Permit is nil, or ErrUnsupported with the reason.
	Permit(Algorithm) error
}

// Permit asks the gate of t, if it has one. Whoever uses a public half (Verify, EncryptOAEP, Encapsulate) for a node with a token asks
// first: those functions see no token.
func Permit(t Token, a Algorithm) error {
	if g, ok := t.(Gate); ok {
		return g.Permit(a)
	}
	return nil
}
