package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// evidenceDir is where a segment goes that was replaced because it was damaged. Nothing reads it but people.
const evidenceDir = "evidence"

// Extent is the range [first, end) of leaves in the segment that holds leaf, or that cannot be read from leaf on. It is what
// Replace takes in one piece; first == end if none of its records can be found. false: no segment is there, leaf is in a gap.
func (j *Journal) Extent(leaf uint64) (first, end uint64, there bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.broken(leaf)
	if s == nil {
		return leaf, leaf, false
	}
	return s.first, s.end(), true
}

// broken is the segment that Damage at leaf is about.
func (j *Journal) broken(leaf uint64) *segment {
	for _, s := range j.segments {
		if s.damage != nil && s.damage.Leaf == leaf {
			return s
		}
	}
	return j.find(leaf)
}

// Replace puts a new segment with the records from first on in the place of the one that Extent found for the damaged leaf, whose
// file moves, as it is, to the folder evidence; where it went is returned. The caller has verified the records. Records that
// were appended meanwhile are taken over. The new file is durable and complete before the old one moves; a crash between the
// two leaves a gap, which Fill closes.
func (j *Journal) Replace(leaf, first uint64, data [][]byte) (evidence string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return "", err
	}
	old := j.broken(leaf)
	if old == nil || old.first != first {
		return "", fmt.Errorf("journal: no segment at leaf %d is to be replaced for leaf %d", first, leaf)
	}
	if err := j.retire(); err != nil {
		return "", j.fail(err)
	}
	data = append(slices.Clip(data), old.rest(first+uint64(len(data)))...)
	fresh, err := writeSegment(j.dir, first, data)
	if err != nil {
		return "", j.fail(err)
	}
	if evidence, err = j.exchange(old, fresh); err != nil {
		return "", j.fail(err)
	}
	if err := j.extend(); err != nil {
		return "", j.fail(err)
	}
	return evidence, nil
}

// rest are the records from leaf on that are good.
func (s *segment) rest(leaf uint64) [][]byte {
	var out [][]byte
	for leaf < s.end() {
		recs, err := s.read(leaf, markEvery, segmentBytes)
		if err != nil {
			return out
		}
		for _, r := range recs {
			if !r.Verifies() {
				return out
			}
			out = append(out, r.Data)
		}
		leaf += uint64(len(recs))
	}
	return out
}

// writeSegment makes a whole segment under a name that Open does not look at.
func writeSegment(dir string, first uint64, data [][]byte) (*segment, error) {
	s := &segment{path: filepath.Join(dir, fmt.Sprintf("%0*d.new", nameDigits, first)), first: first, size: int64(segmentHeader)}
	b := binary.BigEndian.AppendUint64([]byte(magic), first)
	for _, d := range data {
		before := len(b)
		b = appendRecord(b, s.end(), d)
		s.add(int64(len(b) - before))
	}
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(b)
	return s, errors.Join(err, f.Sync(), f.Close())
}

func (j *Journal) exchange(old, fresh *segment) (string, error) {
	evidence, err := j.setAside(old)
	if err != nil {
		return "", err
	}
	if fresh.count == 0 { // nothing of it could be read: what it held is a gap now
		j.segments = slices.DeleteFunc(j.segments, func(s *segment) bool { return s == old })
		return evidence, os.Remove(fresh.path)
	}
	if err := os.Rename(fresh.path, old.path); err != nil {
		return "", err
	}
	fresh.path = old.path
	j.segments[slices.Index(j.segments, old)] = fresh
	return evidence, syncDir(j.dir)
}

// setAside moves the segment's file and drops its index. A file that is gone leaves no evidence.
func (j *Journal) setAside(s *segment) (string, error) {
	dir := filepath.Join(j.dir, evidenceDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Remove(indexPath(s.path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for n := 1; ; n++ {
		to := filepath.Join(dir, filepath.Base(s.path)+"."+strconv.Itoa(n))
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		err := os.Rename(s.path, to)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		return to, errors.Join(err, syncDir(dir))
	}
}
