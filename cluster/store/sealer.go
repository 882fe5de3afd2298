package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// ErrDamaged reports a stored record that was changed, cut or moved.
var ErrDamaged = errors.New("store: record is damaged")

// Kind tells records of different stores apart. Numbers are stored in checksums and never reused.
type Kind uint8

const (
	KindLog    Kind = 1 // a raft log entry: Index, Term and Type are set
	KindStable Kind = 2 // a stable value: Key is set
)

// Record is the identity of a stored record: what a sealer binds the data to.
type Record struct {
	Kind  Kind
	Index uint64
	Term  uint64
	Type  raft.LogType
	Key   string
}

// Sealer protects records at rest. Open(r, Seal(r, p)) is p; for any other identity or any other bytes Open returns an error
// that is ErrDamaged. Both are safe for concurrent use and neither keeps nor changes its arguments.
type Sealer interface {
	Seal(r Record, plaintext []byte) ([]byte, error)
	Open(r Record, sealed []byte) ([]byte, error)
}

// Checksum is a Sealer that detects accidents: a flipped bit, a cut or a moved record. It hides nothing and stops no forger:
// whoever reads the disk reads the records, and whoever writes it can compute a CRC. raft-boltdb has no checksum of its own.
type Checksum struct{}

// checksumVersion is the first byte of a sealed record, so that another sealer can tell old records from its own.
const checksumVersion = 1

const checksumHeader = 1 + 4 // version, CRC32C big-endian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal implements Sealer.
func (Checksum) Seal(r Record, plaintext []byte) ([]byte, error) {
	out := make([]byte, checksumHeader, checksumHeader+len(plaintext))
	out[0] = checksumVersion
	binary.BigEndian.PutUint32(out[1:], sum(r, plaintext))
	return append(out, plaintext...), nil
}

// Open implements Sealer.
func (Checksum) Open(r Record, sealed []byte) ([]byte, error) {
	if len(sealed) < checksumHeader {
		return nil, fmt.Errorf("%w: %d bytes are too short for a header", ErrDamaged, len(sealed))
	}
	if sealed[0] != checksumVersion {
		return nil, fmt.Errorf("%w: unknown record version %d", ErrDamaged, sealed[0])
	}
	plaintext := sealed[checksumHeader:]
	if want := binary.BigEndian.Uint32(sealed[1:]); sum(r, plaintext) != want {
		return nil, fmt.Errorf("%w: checksum does not match", ErrDamaged)
	}
	return append([]byte{}, plaintext...), nil
}

// sum covers the identity too, or a record moved to another index would pass.
func sum(r Record, data []byte) uint32 {
	id := []byte{checksumVersion, byte(r.Kind), byte(r.Type)}
	id = binary.BigEndian.AppendUint64(id, r.Index)
	id = binary.BigEndian.AppendUint64(id, r.Term)
	id = binary.BigEndian.AppendUint64(id, uint64(len(r.Key)))
	id = append(id, r.Key...)
	return crc32.Update(crc32.Checksum(id, castagnoli), castagnoli, data)
}
