package journal

import (
	"hash/crc32"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/vault/segment"
)

// magic is how a segment of the journal begins.
const magic = "conclave journal 1\n"

// MaxRecord bounds one record.
const MaxRecord = segment.MaxRecord

// Damage is the first leaf that a journal cannot give back as it was written; its number is the leaf.
type Damage = segment.Damage

// Record is one leaf as the disk holds it. It verifies if the hash of Data is Hash.
type Record struct {
	Leaf uint64
	Data []byte
	Hash tlog.Hash
}

// Verifies reports whether the bytes still have the hash that was stored with them.
func (r Record) Verifies() bool { return tlog.RecordHash(r.Data) == r.Hash }

// appendRecord frames a leaf and says what its hash is.
func appendRecord(b []byte, leaf uint64, data []byte) ([]byte, tlog.Hash) {
	h := tlog.RecordHash(data)
	return segment.Append(b, segment.Record{Number: leaf, Data: data, Hash: segment.Hash(h)}), h
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readRecords is segment.File's Read, in this package's words.
func readRecords(s *segment.File, from uint64, limit, maxBytes int) ([]Record, error) {
	recs, err := s.Read(from, limit, maxBytes)
	out := make([]Record, len(recs))
	for i, r := range recs {
		out[i] = Record{Leaf: r.Number, Data: r.Data, Hash: tlog.Hash(r.Hash)}
	}
	return out, err
}
