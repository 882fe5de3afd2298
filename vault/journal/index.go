package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/fnv"
	"io"
	"math"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/conclave-vault/conclave/vault/segment"
)

// An index stands beside a segment that is full: for each record the hash of its subject and its place, sorted, so that the
// events of one key are found without reading the log. It is derived, checked by a CRC, and made anew where it is missing or
// does not fit. The segment that still grows has its index in memory, made when it is first asked for.
//
// The file: magic ‖ u64 first ‖ u64 count ‖ u64 bytes of the segment ‖ entries of u64 hash and u32 place ‖ u32 CRC-32C.
const (
	indexMagic  = "conclave index 1\n"
	indexHeader = len(indexMagic) + 24
	entrySize   = 12
)

type indexEntry struct {
	hash  uint64
	place uint32
}

func compareEntries(a, b indexEntry) int {
	return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.place, b.place))
}

func indexPath(path string) string { return strings.TrimSuffix(path, segment.Suffix) + ".idx" }

func subjectHash(subject string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(subject)) // a hash does not fail
	return h.Sum64()
}

// IndexBy tells the journal what the subject of a record is; before the first Lookup. ok is false for bytes that have none.
func (j *Journal) IndexBy(subject func(data []byte) (string, bool)) { j.subject = subject }

// Lookup returns leaves from leaf from on whose record has the subject, in ascending order, at most limit. Few of them may have
// another subject of the same hash: the caller reads them anyway. What lies in a gap or behind damage is not found; Gap tells.
func (j *Journal) Lookup(subject string, from uint64, limit int) ([]uint64, error) {
	j.indexing.Lock()
	defer j.indexing.Unlock()
	hash := subjectHash(subject)
	var out []uint64
	for _, s := range j.snapshot() {
		if s.End() <= from {
			continue
		}
		places, err := j.places(s, hash)
		if err != nil {
			return nil, err
		}
		for _, p := range places {
			leaf := s.First + uint64(p)
			if leaf >= from && j.holds(leaf, s.Path) {
				out = append(out, leaf)
			}
		}
		if len(out) >= limit && !s.overlapped {
			break
		}
	}
	slices.Sort(out)
	return out[:min(limit, len(out))], nil
}

// seen is a segment as it was when a lookup began.
type seen struct {
	segment.File
	grows      bool
	overlapped bool // a later segment holds leaves between this one's
}

func (j *Journal) snapshot() []seen {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]seen, len(j.segments))
	for i, s := range j.segments {
		out[i] = seen{File: *s, grows: j.active == nil && i == len(j.segments)-1 || j.active != nil && j.active.Name() == s.Path}
		out[i].overlapped = i+1 < len(j.segments) && j.segments[i+1].First < s.End()
	}
	return out
}

// holds reports whether reads of leaf go to the segment at path.
func (j *Journal) holds(leaf uint64, path string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.find(leaf)
	return s != nil && s.Path == path
}

// places finds the records of a hash in one segment.
func (j *Journal) places(s seen, hash uint64) ([]uint32, error) {
	if s.grows || s.Count > math.MaxUint32 {
		return j.recent(s, hash)
	}
	found, err := searchIndex(&s.File, hash)
	if err == nil {
		return found, nil
	}
	entries, complete := j.entries(&s.File, 0)
	slices.SortFunc(entries, compareEntries)
	if complete {
		if err := writeIndex(&s.File, entries); err != nil {
			return nil, err
		}
	}
	return among(len(entries), hash, func(i int) indexEntry { return entries[i] }), nil
}

// recentIndex is the index in memory of the segment that grows.
type recentIndex struct {
	path   string
	count  uint64
	places map[uint64][]uint32
}

func (j *Journal) recent(s seen, hash uint64) ([]uint32, error) {
	r := &j.growing
	if r.path != s.Path || r.count > s.Count {
		*r = recentIndex{path: s.Path, places: map[uint64][]uint32{}}
	}
	entries, _ := j.entries(&s.File, r.count)
	for _, e := range entries {
		r.places[e.hash] = append(r.places[e.hash], e.place)
		r.count = uint64(e.place) + 1
	}
	return r.places[hash], nil
}

// entries reads the subjects of a segment from a place on; complete is false if damage hid some.
func (j *Journal) entries(s *segment.File, from uint64) (all []indexEntry, complete bool) {
	complete = s.Damage == nil
	for at := s.First + from; at < s.End(); {
		recs, err := readRecords(s, at, segment.MarkEvery, segmentBytes)
		if err != nil {
			return all, false
		}
		for _, r := range recs {
			e := indexEntry{place: uint32(r.Leaf - s.First)}
			if subject, ok := j.subject(r.Data); ok && r.Verifies() {
				e.hash = subjectHash(subject)
			} else {
				complete = false
			}
			all = append(all, e)
		}
		at += uint64(len(recs))
	}
	return all, complete
}

func writeIndex(s *segment.File, entries []indexEntry) error {
	b := binary.BigEndian.AppendUint64([]byte(indexMagic), s.First)
	b = binary.BigEndian.AppendUint64(b, s.Count)
	b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
	for _, e := range entries {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, e.hash), e.place)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	part := indexPath(s.Path) + ".new"
	if err := os.WriteFile(part, b, 0o600); err != nil {
		return err
	}
	return os.Rename(part, indexPath(s.Path)) // not fsynced: one that a crash spoils fails its CRC and is made anew
}

var errIndex = errors.New("journal: the index does not fit its segment")

// searchIndex reads the whole file, which is small, so that its CRC can be believed.
func searchIndex(s *segment.File, hash uint64) ([]uint32, error) {
	f, err := os.Open(indexPath(s.Path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	want := indexHeader + int(s.Count)*entrySize + 4
	b, err := io.ReadAll(io.LimitReader(f, int64(want)+1))
	if err != nil {
		return nil, err
	}
	if len(b) != want || crc32.Checksum(b[:want-4], castagnoli) != binary.BigEndian.Uint32(b[want-4:]) || !fits(s, b) {
		return nil, errIndex
	}
	b = b[indexHeader:]
	return among(int(s.Count), hash, func(i int) indexEntry {
		e := b[i*entrySize:]
		return indexEntry{binary.BigEndian.Uint64(e), binary.BigEndian.Uint32(e[8:])}
	}), nil
}

func fits(s *segment.File, b []byte) bool {
	n := len(indexMagic)
	return string(b[:n]) == indexMagic && binary.BigEndian.Uint64(b[n:]) == s.First &&
		binary.BigEndian.Uint64(b[n+8:]) == s.Count && binary.BigEndian.Uint64(b[n+16:]) == uint64(s.Size)
}

// among returns the places of a hash in n sorted entries.
func among(n int, hash uint64, at func(int) indexEntry) []uint32 {
	var out []uint32
	for i := sort.Search(n, func(i int) bool { return at(i).hash >= hash }); i < n && at(i).hash == hash; i++ {
		out = append(out, at(i).place)
	}
	return out
}
