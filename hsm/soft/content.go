package soft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/conclave-vault/conclave/hsm"
)

// contents is what the keystore holds, sealed. Its byte fields may alias the plaintext it was decoded from.
type contents struct {
	hsm.Redacted
	serial   string // 16 hexadecimal digits, for the life of the token
	identity []byte // PKCS#8, P-256
	exchange []byte // PKCS#8, P-256
	storage  storageKey
	kept     *keptMaster // nil: none
}

// storageKey wraps the data keys under which a node's records are sealed. Epoch 1 is made with the token, so that no token
// exists that could not seal records; a roll of the epoch replaces it.
type storageKey struct {
	epoch uint32
	key   []byte // 32 bytes
}

// keptMaster is a master that outlives the process.
type keptMaster struct {
	hsm.Persistence
	wrap, export, bind []byte // 32 bytes each
}

const (
	keySize       = 32
	serialDigits  = 16
	maxPKCS8      = 256 // P-256 with its public key needs 138
	maxContents   = 4096
	flagNoMaster  = 0
	flagHasMaster = 1
)

// encode is the canonical form: fields in order, each of variable length preceded by that length in two bytes, integers big
// endian. The result is one allocation, so that wiping it wipes all.
func (c *contents) encode() []byte {
	b := make([]byte, 0, maxContents)
	b = appendField(b, []byte(c.serial))
	b = appendField(b, c.identity)
	b = appendField(b, c.exchange)
	b = binary.BigEndian.AppendUint32(b, c.storage.epoch)
	b = append(b, c.storage.key...)
	if c.kept == nil {
		return append(b, flagNoMaster)
	}
	b = appendField(append(b, flagHasMaster), []byte(c.kept.ClusterID))
	b = binary.BigEndian.AppendUint32(b, c.kept.Generation)
	b = binary.BigEndian.AppendUint64(b, c.kept.UnsealedAt)
	b = append(b, c.kept.wrap...)
	b = append(b, c.kept.export...)
	return append(b, c.kept.bind...)
}

func appendField(b, field []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(field))), field...)
}

// decodeContents is the inverse of encode; it accepts exactly what encode makes. The keys inside are parsed by their users.
// hsm.ErrTokenDamaged.
func decodeContents(b []byte) (*contents, error) {
	if len(b) > maxContents {
		return nil, fmt.Errorf("%w: contents of %d bytes", hsm.ErrTokenDamaged, len(b))
	}
	s, c := cryptobyte.String(b), new(contents)
	if !c.readKeys(&s) || !c.readKept(&s) || !s.Empty() {
		return nil, fmt.Errorf("%w: the contents do not decode", hsm.ErrTokenDamaged)
	}
	return c, nil
}

func (c *contents) readKeys(s *cryptobyte.String) bool {
	var serial []byte
	ok := readField(s, &serial, serialDigits) && len(serial) == serialDigits &&
		readField(s, &c.identity, maxPKCS8) && readField(s, &c.exchange, maxPKCS8) &&
		s.ReadUint32(&c.storage.epoch) && c.storage.epoch > 0 && s.ReadBytes(&c.storage.key, keySize)
	c.serial = string(serial)
	return ok
}

func (c *contents) readKept(s *cryptobyte.String) bool {
	var flag uint8
	if !s.ReadUint8(&flag) || flag > flagHasMaster {
		return false
	}
	if flag == flagNoMaster {
		return true
	}
	var clusterID []byte
	k := new(keptMaster)
	ok := readField(s, &clusterID, hsm.MaxClusterID) && len(clusterID) > 0 &&
		s.ReadUint32(&k.Generation) && k.Generation > 0 && s.ReadUint64(&k.UnsealedAt) &&
		s.ReadBytes(&k.wrap, keySize) && s.ReadBytes(&k.export, keySize) && s.ReadBytes(&k.bind, keySize)
	k.ClusterID, c.kept = string(clusterID), k
	return ok
}

func readField(s *cryptobyte.String, out *[]byte, most int) bool {
	var field cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&field) || len(field) > most {
		return false
	}
	*out = field
	return true
}
