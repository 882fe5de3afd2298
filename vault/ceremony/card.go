package ceremony

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"

	"filippo.io/age"

	"github.com/conclave-vault/conclave/fsm"
)

// cardVersion starts a custodian's public card; another layout gets another number.
const cardVersion = "conclave-custodian-1"

// maxCardBytes is far above a card's about 190 bytes: what is longer is not read further.
const maxCardBytes = 512

// CheckName tells whether a custodian may have this name: the rule is fsm's, which refuses others in a roster. Names go into URIs,
// files and tables unquoted. ErrIdentity.
func CheckName(name fsm.CustodianName) error {
	if err := fsm.ValidPersonName(string(name)); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return nil
}

// EncodePublic writes a custodian's public half as the one line that goes to whoever starts the genesis:
// "conclave-custodian-1 NAME age1… BASE64(Ed25519 public key)".
func EncodePublic(c fsm.Custodian) string {
	return strings.Join([]string{cardVersion, string(c.Name), c.Recipient, base64.StdEncoding.EncodeToString(c.SigningKey)}, " ")
}

// ParsePublic reads a public card: exactly one line as EncodePublic writes it, which may end with a newline. ErrIdentity.
func ParsePublic(card []byte) (fsm.Custodian, error) {
	if len(card) > maxCardBytes {
		return fsm.Custodian{}, fmt.Errorf("%w: a public card has at most %d bytes", ErrIdentity, maxCardBytes)
	}
	line := strings.TrimSuffix(string(card), "\n")
	fields := strings.Split(line, " ")
	if len(fields) != 4 || fields[0] != cardVersion {
		return fsm.Custodian{}, fmt.Errorf("%w: a public card is one line \"%s NAME age1… KEY\"", ErrIdentity, cardVersion)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(fields[3])
	if err != nil {
		return fsm.Custodian{}, fmt.Errorf("%w: the signing key is not base64", ErrIdentity)
	}
	c := fsm.Custodian{Name: fsm.CustodianName(fields[1]), Recipient: fields[2], SigningKey: key}
	if err := CheckCustodian(c); err != nil {
		return fsm.Custodian{}, err
	}
	// base64 decoding passes over line breaks; one card has one text.
	if EncodePublic(c) != line {
		return fsm.Custodian{}, fmt.Errorf("%w: the public card is not in its one form", ErrIdentity)
	}
	return c, nil
}

// CheckCustodian tells whether a custodian's name and keys are well formed. ErrIdentity.
func CheckCustodian(c fsm.Custodian) error {
	if err := CheckName(c.Name); err != nil {
		return err
	}
	// The comparison leaves out upper-case spellings of the same recipient.
	if r, err := age.ParseX25519Recipient(c.Recipient); err != nil || r.String() != c.Recipient {
		return fmt.Errorf("%w: the recipient of %s is not an age X25519 recipient (age1…)", ErrIdentity, c.Name)
	}
	if len(c.SigningKey) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: the signing key of %s has %d bytes, not %d", ErrIdentity, c.Name, len(c.SigningKey), ed25519.PublicKeySize)
	}
	return nil
}
