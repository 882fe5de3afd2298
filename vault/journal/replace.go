package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/conclave-vault/conclave/vault/segment"
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
	return s.First, s.End(), true
}

// broken is the segment that Damage at leaf is about.
func (j *Journal) broken(leaf uint64) *segment.File {
	for _, s := range j.segments {
		if s.Damage != nil && s.Damage.Number == leaf {
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
	if old == nil || old.First != first {
		return "", fmt.Errorf("journal: no segment at leaf %d is to be replaced for leaf %d", first, leaf)
	}
	if err := j.retire(); err != nil {
		return "", j.fail(err)
	}
	data = append(slices.Clip(data), rest(old, first+uint64(len(data)))...)
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
func rest(s *segment.File, leaf uint64) [][]byte {
	var out [][]byte
	for leaf < s.End() {
		recs, err := readRecords(s, leaf, segment.MarkEvery, segmentBytes)
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
func writeSegment(dir string, first uint64, data [][]byte) (*segment.File, error) {
	s := segment.New(filepath.Join(dir, strings.TrimSuffix(segment.Name(first, 0), segment.Suffix)+".new"), magic, first)
	b := segment.Header(magic, first)
	for _, d := range data {
		before := len(b)
		b, _ = appendRecord(b, s.End(), d)
		s.Add(int64(len(b) - before))
	}
	f, err := os.OpenFile(s.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(b)
	return s, errors.Join(err, f.Sync(), f.Close())
}

func (j *Journal) exchange(old, fresh *segment.File) (string, error) {
	evidence, err := j.setAside(old)
	if err != nil {
		return "", err
	}
	if fresh.Count == 0 { // nothing of it could be read: what it held is a gap now
		j.segments = slices.DeleteFunc(j.segments, func(s *segment.File) bool { return s == old })
		return evidence, os.Remove(fresh.Path)
	}
	if err := os.Rename(fresh.Path, old.Path); err != nil {
		return "", err
	}
	fresh.Path = old.Path
	j.segments[slices.Index(j.segments, old)] = fresh
	return evidence, segment.SyncDir(j.dir)
}

// setAside moves the segment's file and drops its index. A file that is gone leaves no evidence.
func (j *Journal) setAside(s *segment.File) (string, error) {
	dir := filepath.Join(j.dir, evidenceDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.Remove(indexPath(s.Path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for n := 1; ; n++ {
		to := filepath.Join(dir, filepath.Base(s.Path)+"."+strconv.Itoa(n))
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		err := os.Rename(s.Path, to)
		if errors.Is(err, os.ErrNotExist) {
			return "", nil
		}
		return to, errors.Join(err, segment.SyncDir(dir))
	}
}
