package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxRecord bounds one record; an event is a few hundred bytes, its free text is limited to less than this.
const MaxRecord = 64 << 10

// A record is: u32 length ‖ u64 leaf ‖ u32 CRC-32C of those twelve bytes ‖ data ‖ leaf hash. The header has a checksum of its
// own because a wrong length would make everything behind it unreadable without a word.
const (
	headerSize = 4 + 8 + 4
	hashSize   = tlog.HashSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one leaf as the disk holds it. It verifies if the hash of Data is Hash.
type Record struct {
	Leaf uint64
	Data []byte
	Hash tlog.Hash
}

// Verifies reports whether the bytes still have the hash that was stored with them.
func (r Record) Verifies() bool { return tlog.RecordHash(r.Data) == r.Hash }

func appendRecord(b []byte, leaf uint64, data []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	b = binary.BigEndian.AppendUint64(b, leaf)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = append(b, data...)
	h := tlog.RecordHash(data)
	return append(b, h[:]...)
}

// errTorn: the bytes end inside a record, as after a crash. errFrame: the header is wrong, and what follows cannot be found.
var (
	errTorn  = errors.New("the last record is cut")
	errFrame = errors.New("a record header does not verify")
)

// readRecord reads the record that must be number leaf. io.EOF at the clean end.
func readRecord(r io.Reader, leaf uint64) (Record, error) {
	var h [headerSize]byte
	switch _, err := io.ReadFull(r, h[:]); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Record{}, errTorn
	case err != nil:
		return Record{}, err
	}
	n := binary.BigEndian.Uint32(h[:4])
	if crc32.Checksum(h[:12], castagnoli) != binary.BigEndian.Uint32(h[12:]) || n > MaxRecord ||
		binary.BigEndian.Uint64(h[4:12]) != leaf {
		return Record{}, frameError(h[:], r)
	}
	body := make([]byte, int(n)+hashSize)
	switch _, err := io.ReadFull(r, body); {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return Record{}, errTorn
	case err != nil:
		return Record{}, err
	}
	return Record{Leaf: leaf, Data: body[:n:n], Hash: tlog.Hash(body[n:])}, nil
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

// Damage is the first leaf that a journal cannot give back as it was written.
type Damage struct {
	Leaf   uint64
	Reason string
}

func (d *Damage) Error() string { return fmt.Sprintf("journal: leaf %d: %s", d.Leaf, d.Reason) }
