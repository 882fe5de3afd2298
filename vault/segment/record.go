package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// MaxRecord bounds one record; those of both logs are a few hundred bytes, and their free text is limited to less than this.
const MaxRecord = 64 << 10

// Hash is what stands beside a record.
type Hash = [32]byte

// A record is: u32 length ‖ u64 number ‖ u32 CRC-32C of those twelve bytes ‖ data ‖ hash. The header has a checksum of its
// own because a wrong length would make everything behind it unreadable without a word.
const (
	headerSize = 4 + 8 + 4
	hashSize   = len(Hash{})
	// Overhead is what a record takes besides its data, in bytes.
	Overhead = headerSize + hashSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is a record as the disk holds it. Whether the hash is that of the data is for the owner to say.
type Record struct {
	Number uint64
	Data   []byte
	Hash   Hash
}

// Append frames a record behind b.
func Append(b []byte, r Record) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Data)))
	b = binary.BigEndian.AppendUint64(b, r.Number)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = append(b, r.Data...)
	return append(b, r.Hash[:]...)
}

// errTorn: the bytes end inside a record, as after a crash. errFrame: the header is wrong, and what follows cannot be found.
var (
	errTorn  = errors.New("the last record is cut")
	errFrame = errors.New("a record header does not verify")
)

// read reads the record that must have the number. io.EOF at the clean end.
func read(r io.Reader, number uint64) (Record, error) {
	var h [headerSize]byte
	switch _, err := io.ReadFull(r, h[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Record{}, errTorn
	case err != nil:
		return Record{}, err
	}
	n := binary.BigEndian.Uint32(h[:4])
	if crc32.Checksum(h[:12], castagnoli) != binary.BigEndian.Uint32(h[12:]) || n > MaxRecord ||
		binary.BigEndian.Uint64(h[4:12]) != number {
		return Record{}, frameError(h[:], r)
	}
	body := make([]byte, int(n)+hashSize)
	switch _, err := io.ReadFull(r, body); {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Record{}, errTorn
	case err != nil:
		return Record{}, err
	}
	return Record{Number: number, Data: body[:n:n], Hash: Hash(body[n:])}, nil
}

// frameError tells a tail of zeros, which some file systems leave after a power cut, from a header that somebody changed.
func frameError(header []byte, rest io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(rest, MaxRecord))
	if err != nil {
		return err
	}
	if len(bytes.Trim(header, "\x00")) == 0 && len(bytes.Trim(b, "\x00")) == 0 {
		return errTorn
	}
	return errFrame
}

// Damage is the first record that a file cannot give back as it was written.
type Damage struct {
	Number uint64
	Reason string
}

func (d *Damage) Error() string { return fmt.Sprintf("record %d: %s", d.Number, d.Reason) }
