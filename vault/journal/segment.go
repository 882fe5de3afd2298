package journal

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	magic         = "conclave journal 1\n"
	segmentHeader = len(magic) + 8
	suffix        = ".seg"
	// markEvery bounds both the memory for finding a leaf (16 bytes per so many records) and the bytes read to reach it.
	markEvery = 256
)

// segment is a file of consecutive records from leaf first.
type segment struct {
	path   string
	first  uint64
	count  uint64
	size   int64   // bytes that hold whole records
	marks  []int64 // offset of every markEvery-th record
	damage *Damage // a header that does not verify; nothing behind it can be read
	torn   bool    // bytes follow that are no whole record: never append behind them
}

func (s *segment) end() uint64 { return s.first + s.count }

// A segment's name is its first leaf in digits. A second segment with the same first leaf (the first one is damaged and stays
// as evidence) gets a number behind it.
const nameDigits = 20

func segmentPath(dir string, first uint64, attempt int) string {
	name := fmt.Sprintf("%0*d", nameDigits, first)
	if attempt > 0 {
		name += "." + strconv.Itoa(attempt)
	}
	return filepath.Join(dir, name+suffix)
}

// inOrder sorts segments by first leaf, and those with the same one by number: the later one wins where they overlap.
func inOrder(a, b string) int {
	a, b = strings.TrimSuffix(a, suffix), strings.TrimSuffix(b, suffix)
	folder := strings.LastIndexByte(a, filepath.Separator) + 1 + nameDigits
	return cmp.Or(strings.Compare(a[:min(folder, len(a))], b[:min(folder, len(b))]), cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func firstLeaf(path string) (uint64, error) {
	name := filepath.Base(path)
	if len(name) < nameDigits+len(suffix) {
		return 0, fmt.Errorf("%s: not a segment's name", path)
	}
	first, err := strconv.ParseUint(name[:nameDigits], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: not a segment's name", path)
	}
	return first, nil
}

// createSegment makes an empty segment file and makes its name durable.
func createSegment(dir string, first uint64) (*segment, error) {
	var f *os.File
	err := os.ErrExist
	for attempt := 0; errors.Is(err, os.ErrExist); attempt++ {
		f, err = os.OpenFile(segmentPath(dir, first, attempt), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	_, err = f.Write(binary.BigEndian.AppendUint64([]byte(magic), first))
	s := &segment{path: f.Name(), first: first, size: int64(segmentHeader)}
	return s, errors.Join(err, f.Sync(), f.Close(), syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openSegment scans the headers of a segment's records.
func openSegment(path string) (*segment, error) {
	first, err := firstLeaf(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := &segment{path: path, first: first, size: int64(segmentHeader)}
	r := bufio.NewReaderSize(f, 1<<20)
	header := make([]byte, segmentHeader)
	switch _, err := io.ReadFull(r, header); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.torn = true // the process ended while the segment was made
		return s, nil
	case err != nil:
		return nil, err
	}
	if s.damage = s.checkHeader(header); s.damage != nil {
		return s, nil
	}
	return s, s.scan(r)
}

// checkHeader returns nil if the header is this segment's.
func (s *segment) checkHeader(header []byte) *Damage {
	if string(header[:len(magic)]) != magic || binary.BigEndian.Uint64(header[len(magic):]) != s.first {
		return &Damage{Leaf: s.first, Reason: "the segment's header does not verify"}
	}
	return nil
}

func (s *segment) scan(r io.Reader) error {
	for {
		rec, err := readRecord(r, s.end())
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			s.torn = true
			return nil
		case errors.Is(err, errFrame):
			s.damage = &Damage{Leaf: s.end(), Reason: err.Error()}
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", s.path, err)
		}
		s.add(int64(headerSize + len(rec.Data) + hashSize))
	}
}

func (s *segment) add(bytes int64) {
	if s.count%markEvery == 0 {
		s.marks = append(s.marks, s.size)
	}
	s.count++
	s.size += bytes
}

// reader positions at leaf, which the segment must hold.
// The header is read again: it may have been changed since the segment was opened, and that must not wait for the next start.
func (s *segment) reader(f *os.File, leaf uint64) (io.Reader, error) {
	header := make([]byte, segmentHeader)
	if _, err := f.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if d := s.checkHeader(header); d != nil {
		return nil, d
	}
	n := leaf - s.first
	from := s.marks[n/markEvery]
	r := bufio.NewReader(io.NewSectionReader(f, from, s.size-from))
	for l := leaf - n%markEvery; l < leaf; l++ {
		if _, err := readRecord(r, l); err != nil {
			return nil, s.changed(l, err)
		}
	}
	return r, nil
}

// changed reports records that were whole when the segment was opened or written and are not any more.
func (s *segment) changed(leaf uint64, err error) error {
	if errors.Is(err, errFrame) || errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
		return &Damage{Leaf: leaf, Reason: err.Error()}
	}
	return err
}
