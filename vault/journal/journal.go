package journal

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/vault/segment"
)

// segmentBytes is where a new segment begins: small enough to check one at a time, large enough to keep their number low.
const segmentBytes = 8 << 20

// Errors of the journal.
var (
	// ErrTooLarge: a record is longer than MaxRecord.
	ErrTooLarge = errors.New("journal: the record is too large")
	// ErrClosed: the journal is closed.
	ErrClosed = errors.New("journal: closed")
)

// Journal is a directory of segments.
type Journal struct {
	dir string

	mu       sync.Mutex
	segments []*segment.File // by first leaf; a later one wins where two overlap
	active   *os.File        // the last segment, open for appending; nil if the next append starts a new one
	dirty    bool
	closed   bool
	failed   error // the first error of a write or fsync: what they wrote is unknown, so everything after it is refused
	buf      []byte
	tree     *tree

	subject  func(data []byte) (string, bool) // see IndexBy
	indexing sync.Mutex                       // one lookup at a time; before mu
	growing  recentIndex                      // under indexing
}

// Open scans the segments in dir, which is made (0700) if missing.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	paths, err := segment.List(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{dir: dir, subject: func([]byte) (string, bool) { return "", false }}
	for _, p := range paths {
		s, err := segment.Open(p, magic)
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if s.Count == 0 && s.Torn { // made, never filled: its name would be in the way
			if err := os.Remove(p); err != nil {
				return nil, fmt.Errorf("journal: %w", err)
			}
			continue
		}
		j.segments = append(j.segments, s)
	}
	return j, j.openTree()
}

// openTree opens the stored tree, of which no more is believed than there are records for.
func (j *Journal) openTree() (err error) {
	if j.tree, err = openTree(j.dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if from, to := j.gap(j.tree.size); from < to {
		err = j.tree.cut(from)
	}
	if err == nil {
		err = j.extend()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), j.tree.f.Close())
	}
	return nil
}

// Next is the leaf behind the last record: what an append without a gap brings.
func (j *Journal) Next() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next()
}

func (j *Journal) next() uint64 {
	var end uint64
	for _, s := range j.segments {
		end = max(end, s.End())
	}
	return end
}

// find returns the segment that holds leaf, or nil.
func (j *Journal) find(leaf uint64) *segment.File {
	for _, s := range slices.Backward(j.segments) {
		if s.First <= leaf && leaf < s.End() {
			return s
		}
	}
	return nil
}

// Append stores data as leaf. A leaf that is there already is left as it is: Append returns a *Damage if its bytes differ, and
// the caller decides whom to tell; nothing is overwritten. A leaf beyond Next leaves a gap.
func (j *Journal) Append(leaf uint64, data []byte) error {
	return j.AppendAll(leaf, [][]byte{data})
}

// AppendAll is Append for consecutive leaves, with one write for all. Of several that differ the first one's *Damage is returned.
func (j *Journal) AppendAll(first uint64, data [][]byte) error {
	for _, d := range data {
		if len(d) > MaxRecord {
			return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(d), MaxRecord)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	var damaged error
	for len(data) > 0 {
		if s := j.find(first); s != nil {
			damaged = cmp.Or(damaged, j.compare(s, first, data[0]))
			first, data = first+1, data[1:]
			continue
		}
		n := j.run(first, data)
		if err := j.write(first, data[:n]); err != nil {
			return j.fail(err)
		}
		first, data = first+uint64(n), data[n:]
	}
	return damaged
}

// run is how many of the records can be written in one piece: not beyond a leaf that is there, nor beyond a segment's size.
func (j *Journal) run(first uint64, data [][]byte) int {
	n, bytes := 1, len(data[0])
	for n < len(data) && bytes < segmentBytes/8 && j.find(first+uint64(n)) == nil {
		bytes += len(data[n])
		n++
	}
	return n
}

// write appends records that are not there, and their hashes to the tree if it reaches to them.
func (j *Journal) write(first uint64, data [][]byte) error {
	s, err := j.writable(first)
	if err != nil {
		return err
	}
	j.buf = j.buf[:0]
	ends := make([]int, len(data))
	hashes := make([]tlog.Hash, len(data))
	for i, d := range data {
		j.buf, hashes[i] = appendRecord(j.buf, first+uint64(i), d)
		ends[i] = len(j.buf)
	}
	if _, err := j.active.WriteAt(j.buf, s.Size); err != nil {
		return err
	}
	start := 0
	for _, end := range ends {
		s.Add(int64(end - start))
		start = end
	}
	j.dirty = true
	if j.tree.size != first {
		return nil
	}
	if err := j.tree.add(hashes...); err != nil {
		return err
	}
	if j.find(j.tree.size) != nil { // that was the gap before records that are there
		return j.extend()
	}
	return nil
}

// usable refuses work on a journal that is closed or has failed.
func (j *Journal) usable() error {
	if j.closed {
		return ErrClosed
	}
	return j.failed
}

// fail keeps the first failure for good. Linux reports a lost write once; the next fsync would succeed over the hole.
func (j *Journal) fail(err error) error {
	if j.failed == nil {
		j.failed = fmt.Errorf("journal: %w", err)
	}
	return j.failed
}

func (j *Journal) compare(s *segment.File, leaf uint64, data []byte) error {
	recs, err := readRecords(s, leaf, 1, MaxRecord)
	if err != nil {
		return err
	}
	if recs[0].Hash != tlog.RecordHash(data) || !recs[0].Verifies() {
		return &Damage{Number: leaf, Reason: "the stored record is not the one that the log yields"}
	}
	return nil
}

// writable returns the segment to which leaf can be appended, making one if needed.
func (j *Journal) writable(leaf uint64) (*segment.File, error) {
	for _, s := range slices.Backward(j.segments) {
		if s.End() == leaf && !s.Torn && s.Damage == nil && s.Size < segmentBytes {
			return s, j.activate(s)
		}
	}
	if err := j.retire(); err != nil {
		return nil, err
	}
	s, err := segment.Create(j.dir, magic, leaf)
	if err != nil {
		return nil, err
	}
	at, _ := slices.BinarySearchFunc(j.segments, s, func(a, b *segment.File) int { return segment.InOrder(a.Path, b.Path) })
	j.segments = slices.Insert(j.segments, at, s)
	return s, j.activate(s)
}

func (j *Journal) activate(s *segment.File) error {
	if j.active != nil && j.active.Name() == s.Path {
		return nil
	}
	if err := j.retire(); err != nil {
		return err
	}
	f, err := os.OpenFile(s.Path, os.O_RDWR, 0o600)
	j.active = f
	return err
}

// retire makes the active segment durable and closes it.
func (j *Journal) retire() error {
	if j.active == nil {
		return nil
	}
	err := errors.Join(j.active.Sync(), j.active.Close(), j.tree.sync())
	j.active, j.dirty = nil, false
	return err
}

// Fill stores records that a peer sent for the gap that begins at from, durably; the caller has verified them. Records that are
// there already are left alone.
func (j *Journal) Fill(from uint64, data [][]byte) error {
	if err := j.AppendAll(from, data); err != nil {
		return err
	}
	return j.Sync()
}

// Gap returns the first range [from, to) below size of which no record is there; from == to if there is none.
func (j *Journal) Gap(size uint64) (from, to uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.gap(size)
}

func (j *Journal) gap(size uint64) (from, to uint64) {
	for from < size {
		s := j.find(from)
		if s == nil {
			break
		}
		from = s.End()
	}
	if from >= size {
		return size, size
	}
	to = size
	for _, s := range j.segments {
		if s.First > from && s.Count > 0 {
			to = min(to, s.First)
		}
	}
	return from, to
}

// Sync makes everything appended so far durable. An error is final for the process: what a failed fsync wrote is unknown.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if !j.dirty || j.active == nil {
		return nil
	}
	if err := errors.Join(j.active.Sync(), j.tree.sync()); err != nil {
		return j.fail(err)
	}
	j.dirty = false
	return nil
}

// Read returns consecutive records from leaf from, as the disk holds them now: at most limit, and about maxBytes. The records
// before damage are returned with a nil error; a read that begins at damage returns *Damage. Data is not checked against Hash:
// that is the reader's business, who may want to see both.
func (j *Journal) Read(from uint64, limit, maxBytes int) ([]Record, error) {
	s, err := j.locate(from)
	if s == nil || err != nil {
		return nil, err
	}
	return readRecords(s, from, limit, maxBytes)
}

// locate returns the segment that holds leaf as it is now, nil behind the end. A copy, so that readers do not hold up the appends
// that the state machine waits for.
func (j *Journal) locate(leaf uint64) (*segment.File, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrClosed
	}
	if d := j.damaged(leaf); d != nil {
		return nil, d
	}
	if s := j.find(leaf); s != nil {
		now := *s
		return &now, nil
	}
	if leaf < j.next() {
		return nil, &Damage{Number: leaf, Reason: "no record is stored here"}
	}
	return nil, nil
}

// damaged keeps a broken header in sight even after its leaves came again into another segment: it is evidence.
func (j *Journal) damaged(leaf uint64) *Damage {
	for _, s := range j.segments {
		if s.Damage != nil && s.Damage.Number == leaf {
			return s.Damage
		}
	}
	return nil
}

// Close makes the journal durable and closes it.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	return errors.Join(j.retire(), j.tree.sync(), j.tree.f.Close())
}
