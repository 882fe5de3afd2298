package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/vault/segment"
)

// The tree's file holds every hash of the RFC 6962 tree that will never change, in the order of tlog.StoredHashIndex, behind a
// header: magic ‖ u64 leaves that are durable ‖ u32 CRC-32C of both. It is derived from the records and made anew where it is
// missing: what it saves is reading the whole log for a proof, and holding the tree in memory.
const (
	treeName       = "tree.hashes"
	treeMagic      = "conclave tree 1\n"
	treeHeaderSize = 64 // a multiple of the hash size, with room
)

// ErrTree: the file of hashes is not the tree of the records; Rebuild makes it anew.
var ErrTree = errors.New("journal: the stored tree does not fit the records")

// tree is the file of hashes. The journal's lock guards it, except for reading hashes below size.
type tree struct {
	f     *os.File
	size  uint64      // leaves
	edge  []tlog.Hash // roots of the perfect subtrees, largest first
	saved uint64      // leaves that the header calls durable
	buf   []byte
}

func openTree(dir string) (*tree, error) {
	f, err := os.OpenFile(filepath.Join(dir, treeName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	t := &tree{f: f}
	if err := t.load(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return t, nil
}

// load believes the header's count and no more: what lies behind it was perhaps written and perhaps not.
func (t *tree) load() error {
	info, err := t.f.Stat()
	if err != nil {
		return err
	}
	header := make([]byte, treeHeaderSize)
	if _, err := t.f.ReadAt(header, 0); err != nil {
		return t.cut(0) // new, or not even a header
	}
	n := len(treeMagic)
	saved := binary.BigEndian.Uint64(header[n:])
	if !bytes.Equal(header[:n], []byte(treeMagic)) || crc32.Checksum(header[:n+8], castagnoli) != binary.BigEndian.Uint32(header[n+8:]) {
		saved = 0
	}
	there := uint64(max(info.Size()-treeHeaderSize, 0)) / tlog.HashSize
	return t.cut(min(saved, leavesIn(there)))
}

// leavesIn is how many leaves a number of stored hashes is enough for.
func leavesIn(hashes uint64) uint64 {
	n := sort.Search(int(min(hashes, 1<<40)), func(n int) bool { return uint64(tlog.StoredHashCount(int64(n)+1)) > hashes })
	return uint64(n)
}

// cut forgets the leaves from size on.
func (t *tree) cut(size uint64) error {
	var indexes []int64
	for level, first := bits.Len64(size), uint64(0); level >= 0; level-- {
		if size>>level&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(level, int64(first>>level)))
			first += 1 << level
		}
	}
	edge, err := t.ReadHashes(indexes)
	if err != nil {
		return err
	}
	t.size, t.edge, t.saved = size, edge, min(t.saved, size)
	return nil
}

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := t.f.ReadAt(out[i][:], treeHeaderSize+x*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("journal: the stored tree: %w", err)
		}
	}
	return out, nil
}

// add appends leaves by their hashes.
func (t *tree) add(leaves ...tlog.Hash) error {
	at := treeHeaderSize + tlog.StoredHashCount(int64(t.size))*tlog.HashSize
	size, edge := t.size, t.edge
	t.buf = t.buf[:0]
	for _, h := range leaves {
		t.buf = append(t.buf, h[:]...)
		keep := len(edge)
		for n := size; n&1 == 1; n >>= 1 { // each trailing one of the old size is a subtree that is now complete
			keep--
			h = tlog.NodeHash(edge[keep], h)
			t.buf = append(t.buf, h[:]...)
		}
		edge = append(edge[:keep], h)
		size++
	}
	t.size, t.edge = size, edge
	_, err := t.f.WriteAt(t.buf, at)
	return err
}

// check recomputes what leaf n completes and compares.
func (t *tree) check(n uint64, leaf tlog.Hash) error {
	want, err := tlog.StoredHashesForRecordHash(int64(n), leaf, t)
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, int64(n))
	for i := range want {
		have, err := t.ReadHashes([]int64{first + int64(i)})
		if err != nil {
			return err
		}
		if have[0] != want[i] {
			return ErrTree
		}
	}
	return nil
}

// sync makes the hashes durable, then says so in the header. The header needs no fsync of its own: an older one is true too.
func (t *tree) sync() error {
	if t.saved == t.size {
		return nil
	}
	if err := t.f.Sync(); err != nil {
		return err
	}
	header := binary.BigEndian.AppendUint64([]byte(treeMagic), t.size)
	header = binary.BigEndian.AppendUint32(header, crc32.Checksum(header, castagnoli))
	if _, err := t.f.WriteAt(append(header, make([]byte, treeHeaderSize-len(header))...), 0); err != nil {
		return err
	}
	t.saved = t.size
	return nil
}

// TreeSize is how many leaves the stored tree has: those from the first on that are there without a gap.
func (j *Journal) TreeSize() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.tree.size
}

// Hashes reads the stored tree; only indexes of a tree of at most TreeSize leaves are there.
func (j *Journal) Hashes() tlog.HashReader { return j.tree }

// extend brings the tree up to the records that are there without a gap. Damage ends it and is not its business: whoever reads
// the leaf hears of it.
func (j *Journal) extend() error {
	for s := j.find(j.tree.size); s != nil; s = j.find(j.tree.size) {
		recs, err := readRecords(s, j.tree.size, segment.MarkEvery, segmentBytes)
		if err != nil {
			return ignoreDamage(err)
		}
		hashes := make([]tlog.Hash, 0, len(recs))
		for _, r := range recs {
			if j.find(r.Leaf) != s || !r.Verifies() {
				break
			}
			hashes = append(hashes, r.Hash)
		}
		if len(hashes) == 0 {
			return nil
		}
		if err := j.tree.add(hashes...); err != nil {
			return err
		}
	}
	return nil
}

func ignoreDamage(err error) error {
	if d := (*Damage)(nil); errors.As(err, &d) {
		return nil
	}
	return err
}

// Rebuild makes the stored tree anew from the records.
func (j *Journal) Rebuild() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if err := j.tree.cut(0); err != nil {
		return j.fail(err)
	}
	if err := j.extend(); err != nil {
		return j.fail(err)
	}
	return nil
}

// Check reads up to limit records from leaf from on and holds them against the hashes beside them and against the stored tree.
// It returns the leaf to go on with; from itself at the end of the tree. *Damage names a leaf whose record is not the one that was
// written, ErrTree says that the tree is not that of a record whose own hash is right: one of the two was changed, and only
// whoever knows the root can tell which.
func (j *Journal) Check(from uint64, limit int) (uint64, error) {
	size := j.TreeSize()
	if from >= size {
		return from, nil
	}
	recs, err := j.Read(from, limit, segmentBytes)
	if err != nil {
		return from, err
	}
	for _, r := range recs {
		if r.Leaf >= size {
			break
		}
		if !r.Verifies() {
			return r.Leaf, &Damage{Number: r.Leaf, Reason: "the record does not match the hash stored beside it"}
		}
		if err := j.tree.check(r.Leaf, r.Hash); err != nil {
			return r.Leaf, err
		}
		from = r.Leaf + 1
	}
	return from, nil
}
