package ceremony

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"

	"filippo.io/age"

	"github.com/conclave-vault/conclave/fsm"
)

const (
	// maxPins and maxShares bound an identity file: a person is custodian of few clusters, and each has few generations and
	// aborted ceremonies. The file stays below maxIdentityBytes.
	maxPins   = 64
	maxShares = 64
)

// Identity is a custodian's private half: an age X25519 key that opens shares, an Ed25519 key that signs, the roster hashes that
// it trusts, and its shares, each still encrypted to its own recipient. It is not safe for concurrent use.
type Identity struct {
	redaction
	name fsm.CustodianName
	keys *identityKeys // a pointer, so that fmt does not reach them where Format is not asked

	pins   []Pin
	shares []StoredShare
}

type identityKeys struct {
	age  *age.X25519Identity
	sign ed25519.PrivateKey
}

// Pin is the hash of the genesis roster of a cluster: the root from which this custodian follows the roster chain.
type Pin struct {
	ClusterID string
	Roster    [32]byte
}

// StoredShare is a share at rest in an identity, as SealShareToCustodian made it.
type StoredShare struct {
	ClusterID  string
	Generation uint32
	Ceremony   fsm.CeremonyID // the genesis that dealt it
	Roster     [32]byte       // hash of the roster it was dealt under
	Sealed     []byte
}

func (s StoredShare) info(who fsm.CustodianName) Info {
	return Info{ClusterID: s.ClusterID, Ceremony: s.Ceremony, Custodian: who}
}

func (s StoredShare) isFor(clusterID string, generation uint32) bool {
	return s.ClusterID == clusterID && s.Generation == generation
}

// NewIdentity makes an identity with fresh keys of the system's generator.
func NewIdentity(name string) (*Identity, error) {
	if err := CheckName(fsm.CustodianName(name)); err != nil {
		return nil, err
	}
	opener, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("generating the age key of custodian %s: %w", name, err)
	}
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the signing key of custodian %s: %w", name, err)
	}
	return &Identity{name: fsm.CustodianName(name), keys: &identityKeys{age: opener, sign: signer}}, nil
}

// Name of the custodian.
func (i *Identity) Name() fsm.CustodianName { return i.name }

// Public returns the half that rosters list.
func (i *Identity) Public() fsm.Custodian {
	public := i.keys.sign.Public().(ed25519.PublicKey)
	return fsm.Custodian{Name: i.name, Recipient: i.keys.age.Recipient().String(), SigningKey: slices.Clone(public)}
}

// Sign signs one of the framed messages of fsm or of this package (Ed25519).
func (i *Identity) Sign(message []byte) []byte { return ed25519.Sign(i.keys.sign, message) }

// OpenShare decrypts a share that was sealed to this identity under info. ErrOpen. The caller wipes it.
func (i *Identity) OpenShare(sealed []byte, info Info) (Share, error) {
	return openShare(i.keys.age, sealed, info)
}

// PinRoster makes hash the root of the cluster's roster chain, for ever: another hash for the same cluster is refused, since it
// is what an impostor of the cluster would show. ErrPin.
func (i *Identity) PinRoster(clusterID string, hash [32]byte) error {
	if at := i.pinAt(clusterID); at >= 0 {
		if i.pins[at].Roster != hash {
			return fmt.Errorf("%w: cluster %s is pinned to %x, not %x", ErrPin, clusterID, i.pins[at].Roster, hash)
		}
		return nil
	}
	if clusterID == "" || len(i.pins) >= maxPins {
		return fmt.Errorf("%w: no cluster id, or more than %d clusters", ErrIdentity, maxPins)
	}
	i.pins = append(i.pins, Pin{ClusterID: clusterID, Roster: hash})
	return nil
}

func (i *Identity) pinAt(clusterID string) int {
	return slices.IndexFunc(i.pins, func(p Pin) bool { return p.ClusterID == clusterID })
}

// Pinned returns the pinned hash of the cluster's genesis roster.
func (i *Identity) Pinned(clusterID string) ([32]byte, bool) {
	if at := i.pinAt(clusterID); at >= 0 {
		return i.pins[at].Roster, true
	}
	return [32]byte{}, false
}

// CheckPin tells whether a roster chain starts where this custodian knows it to start: at the pinned roster, or, when the genesis
// ended while this program was away, at the roster of a stored share. The links of the chain are fsm.VerifyRosterChain's. ErrPin.
func (i *Identity) CheckPin(clusterID string, chain []fsm.Roster) error {
	if len(chain) == 0 || chain[0].ClusterID != clusterID {
		return fmt.Errorf("%w: the chain does not start with a roster of cluster %s", ErrPin, clusterID)
	}
	hash := fsm.RosterHash(chain[0])
	if pinned, ok := i.Pinned(clusterID); ok {
		if pinned != hash {
			return fmt.Errorf("%w: cluster %s shows genesis roster %x, pinned is %x", ErrPin, clusterID, hash, pinned)
		}
		return nil
	}
	if !slices.ContainsFunc(i.shares, func(s StoredShare) bool { return s.ClusterID == clusterID && s.Roster == hash }) {
		return fmt.Errorf("%w: %s took no part in a genesis of cluster %s with roster %x", ErrPin, i.name, clusterID, hash)
	}
	return nil
}

// StoreShare keeps a share, after opening it once to see that it is this custodian's. Shares of an aborted genesis stay until the
// cluster is pinned; then another share for the same cluster and generation is refused. Storing the same one again is not an
// error. The caller saves the identity. ErrOpen, ErrShareHeld.
func (i *Identity) StoreShare(s StoredShare) error {
	share, err := i.OpenShare(s.Sealed, s.info(i.name))
	if err != nil {
		return fmt.Errorf("storing the share of custodian %s: %w", i.name, err)
	}
	share.Wipe()
	kept := slices.DeleteFunc(slices.Clone(i.shares), func(old StoredShare) bool {
		return old.isFor(s.ClusterID, s.Generation) && old.Ceremony == s.Ceremony
	})
	_, pinned := i.Pinned(s.ClusterID)
	if held, ok := i.latest(s.ClusterID, s.Generation); ok && pinned && held.Ceremony != s.Ceremony {
		return fmt.Errorf("%w: cluster %s, generation %d", ErrShareHeld, s.ClusterID, s.Generation)
	}
	if s.Generation == 0 || len(kept) >= maxShares {
		return fmt.Errorf("%w: generation 0, or more than %d shares", ErrIdentity, maxShares)
	}
	s.Sealed = slices.Clone(s.Sealed)
	i.shares = append(kept, s)
	return nil
}

// Share opens the share for a cluster and generation; if several ceremonies dealt one, that of the last. ErrNoShare, ErrOpen. The
// caller wipes it.
func (i *Identity) Share(clusterID string, generation uint32) (Share, error) {
	s, ok := i.latest(clusterID, generation)
	if !ok {
		return Share{}, fmt.Errorf("%w: custodian %s, cluster %s, generation %d", ErrNoShare, i.name, clusterID, generation)
	}
	return i.OpenShare(s.Sealed, s.info(i.name))
}

func (i *Identity) latest(clusterID string, generation uint32) (StoredShare, bool) {
	for _, s := range slices.Backward(i.shares) {
		if s.isFor(clusterID, generation) {
			return s, true
		}
	}
	return StoredShare{}, false
}

// Pins lists the clusters that the identity belongs to.
func (i *Identity) Pins() []Pin { return slices.Clone(i.pins) }

// Shares lists the stored shares, still encrypted.
func (i *Identity) Shares() []StoredShare { return slices.Clone(i.shares) }

// Wipe overwrites the signing key and drops the rest; best effort: age keeps its key out of reach. The identity is unusable then.
func (i *Identity) Wipe() {
	clear(i.keys.sign)
	i.keys.age = nil
}
