package ceremony

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"filippo.io/age"

	"github.com/conclave-vault/conclave/fsm"
)

// identityVersion is the number of the identity file's layout.
const identityVersion = 1

// maxIdentityBytes bounds the file before anything is parsed; 64 shares of the largest accepted size fit.
const maxIdentityBytes = 1 << 20

// identityText is the identity as JSON. Its only instance in memory is short-lived; it is never printed.
type identityText struct {
	Version int         `json:"conclave_identity"`
	Name    string      `json:"name"`
	Age     string      `json:"age_secret_key"`
	Seed    []byte      `json:"ed25519_seed"`
	Pins    []pinText   `json:"pins"`
	Shares  []shareText `json:"shares"`
}

type pinText struct {
	ClusterID string `json:"cluster_id"`
	Roster    string `json:"roster_sha256"`
}

type shareText struct {
	ClusterID  string `json:"cluster_id"`
	Generation uint32 `json:"generation"`
	Ceremony   string `json:"ceremony"`
	Roster     string `json:"roster_sha256"`
	Sealed     []byte `json:"sealed"`
}

// encode writes the one text of the identity. It holds secrets; the caller wipes it.
func (i *Identity) encode() ([]byte, error) {
	t := identityText{
		Version: identityVersion, Name: string(i.name), Age: i.keys.age.String(), Seed: i.keys.sign.Seed(),
		Pins: []pinText{}, Shares: []shareText{},
	}
	defer clear(t.Seed)
	for _, p := range i.pins {
		t.Pins = append(t.Pins, pinText{p.ClusterID, hex.EncodeToString(p.Roster[:])})
	}
	for _, s := range i.shares {
		t.Shares = append(t.Shares, shareText{s.ClusterID, s.Generation, string(s.Ceremony), hex.EncodeToString(s.Roster[:]), s.Sealed})
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return append(b, '\n'), nil
}

// DecodeIdentity reads the clear text of an identity file, as Save without a passphrase writes it. One identity has one text:
// what Save would not write byte for byte is refused, so that nothing in the file is passed over in silence. ErrIdentity, which
// quotes nothing of the file.
func DecodeIdentity(text []byte) (*Identity, error) {
	if len(text) > maxIdentityBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrIdentity, maxIdentityBytes)
	}
	var t identityText
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("%w: not the text of an identity", ErrIdentity)
	}
	defer clear(t.Seed)
	if t.Version != identityVersion {
		return nil, fmt.Errorf("%w: layout %d, this program knows %d", ErrIdentity, t.Version, identityVersion)
	}
	i, err := t.identity()
	if err != nil {
		return nil, err
	}
	again, err := i.encode()
	defer clear(again)
	if err != nil || !bytes.Equal(again, text) {
		return nil, fmt.Errorf("%w: the text is not as this program writes it", ErrIdentity)
	}
	return i, nil
}

func (t identityText) identity() (*Identity, error) {
	if err := CheckName(fsm.CustodianName(t.Name)); err != nil {
		return nil, err
	}
	opener, err := age.ParseX25519Identity(t.Age)
	if err != nil || len(t.Seed) != ed25519.SeedSize {
		// The cause may quote the key.
		return nil, fmt.Errorf("%w: the keys of %s cannot be read", ErrIdentity, t.Name)
	}
	i := &Identity{name: fsm.CustodianName(t.Name), keys: &identityKeys{age: opener, sign: ed25519.NewKeyFromSeed(t.Seed)}}
	if err := t.trust(i); err != nil {
		return nil, err
	}
	return i, nil
}

// trust reads pins and shares. Shares are not opened here: a damaged one is an error when it is needed, and does not keep the
// others from use.
func (t identityText) trust(i *Identity) error {
	if len(t.Pins) > maxPins || len(t.Shares) > maxShares {
		return fmt.Errorf("%w: more than %d pins or %d shares", ErrIdentity, maxPins, maxShares)
	}
	for _, p := range t.Pins {
		hash, err := decodeHash(p.Roster)
		if err != nil {
			return err
		}
		if err := i.PinRoster(p.ClusterID, hash); err != nil {
			return err
		}
	}
	for _, s := range t.Shares {
		hash, err := decodeHash(s.Roster)
		if err != nil {
			return err
		}
		if s.Generation == 0 || s.ClusterID == "" || len(s.Sealed) > maxSealedShareBytes {
			return fmt.Errorf("%w: a stored share is incomplete or too large", ErrIdentity)
		}
		i.shares = append(i.shares, StoredShare{s.ClusterID, s.Generation, fsm.CeremonyID(s.Ceremony), hash, s.Sealed})
	}
	return nil
}

func decodeHash(text string) (hash [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(hash) {
		return hash, fmt.Errorf("%w: a roster hash is not 64 hexadecimal digits", ErrIdentity)
	}
	return [32]byte(b), nil
}
