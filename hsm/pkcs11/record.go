//go:build cgo && unix

package pkcs11

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"github.com/conclave-vault/conclave/hsm"
)

// record is what the token keeps beside a master that outlives the process: a private CKO_DATA object, written after the master
// objects and naming them, so that a master is kept exactly if its record is there.
type record struct {
	hsm.Persistence
	sequence uint64 // from 1; of several records the highest counts, the others are remains
	tag      []byte // CKA_ID of the master objects
	check    hsm.CheckValues
	wrap     canary
	export   canary
	mac      []byte // HMAC-SHA-256 under the bind key over recordLabel and everything before it
}

// canary is how a wrap key is known again without its value: a key that nobody has, wrapped under it, and what GCM makes of no
// plaintext under that key. A device that unwraps it right has the right key and the right algorithm.
type canary struct {
	blob   []byte // 40 bytes, RFC 5649
	sealed []byte // nonce 12 ‖ tag 16
}

// keySize is that of every secret key here, in bytes.
const keySize = 32

const (
	nonceSize  = 12
	tagSize    = 16
	sealedSize = nonceSize + tagSize
	// secretBlob is what RFC 5649 makes of a raw secret of 32 bytes.
	secretBlob = keySize + 8
)

const (
	recordMagic   = "CNCLVKPT"
	recordVersion = 1
	importTagSize = 16
	maxRecord     = 512
	macSize       = 32

	wrapCheckSize = 3 // CKA_CHECK_VALUE
	bindCheckSize = 8
)

// recordLabel separates the record's MAC from every other use of the bind key.
const recordLabel = "conclave/v1/pkcs11-kept-master"

// encode is the record without its MAC: integers big endian, the cluster id preceded by its length in two bytes.
func (r *record) encode() []byte {
	b := make([]byte, 0, maxRecord)
	b = append(b, recordMagic...)
	b = binary.BigEndian.AppendUint16(b, recordVersion)
	b = binary.BigEndian.AppendUint64(b, r.sequence)
	b = append(b, r.tag...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.ClusterID)))
	b = append(b, r.ClusterID...)
	b = binary.BigEndian.AppendUint32(b, r.Generation)
	b = binary.BigEndian.AppendUint64(b, r.UnsealedAt)
	for _, field := range [][]byte{
		r.check.Wrap, r.check.WrapExport, r.check.Bind, r.wrap.blob, r.wrap.sealed, r.export.blob, r.export.sealed,
	} {
		b = append(b, field...)
	}
	return b
}

// message is what the MAC is computed over.
func (r *record) message() []byte { return append([]byte(recordLabel), r.encode()...) }

// decodeRecord is the inverse of encode with the MAC behind; it accepts exactly what was made so, and does not check the MAC.
// hsm.ErrTokenDamaged.
func decodeRecord(b []byte) (*record, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("%w: the record of a kept master has %d bytes", hsm.ErrTokenDamaged, len(b))
	}
	s, r := cryptobyte.String(b), new(record)
	var magic []byte
	var version uint16
	if !s.ReadBytes(&magic, len(recordMagic)) || string(magic) != recordMagic || !s.ReadUint16(&version) {
		return nil, fmt.Errorf("%w: no record of a kept master", hsm.ErrTokenDamaged)
	}
	if version != recordVersion {
		return nil, fmt.Errorf("%w: the record of a kept master has format %d, this release reads %d",
			hsm.ErrTokenDamaged, version, recordVersion)
	}
	if !r.readHead(&s) || !r.readChecks(&s) || !s.Empty() {
		return nil, fmt.Errorf("%w: the record of a kept master does not decode", hsm.ErrTokenDamaged)
	}
	return r, nil
}

func (r *record) readHead(s *cryptobyte.String) bool {
	var clusterID cryptobyte.String
	ok := s.ReadUint64(&r.sequence) && r.sequence > 0 && s.ReadBytes(&r.tag, importTagSize) &&
		s.ReadUint16LengthPrefixed(&clusterID) && len(clusterID) > 0 && len(clusterID) <= hsm.MaxClusterID &&
		s.ReadUint32(&r.Generation) && r.Generation > 0 && s.ReadUint64(&r.UnsealedAt)
	r.ClusterID = string(clusterID)
	return ok
}

func (r *record) readChecks(s *cryptobyte.String) bool {
	return s.ReadBytes(&r.check.Wrap, wrapCheckSize) && s.ReadBytes(&r.check.WrapExport, wrapCheckSize) &&
		s.ReadBytes(&r.check.Bind, bindCheckSize) &&
		s.ReadBytes(&r.wrap.blob, secretBlob) && s.ReadBytes(&r.wrap.sealed, sealedSize) &&
		s.ReadBytes(&r.export.blob, secretBlob) && s.ReadBytes(&r.export.sealed, sealedSize) &&
		s.ReadBytes(&r.mac, macSize)
}
