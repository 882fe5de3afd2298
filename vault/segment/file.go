package segment

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Suffix of every file's name.
const Suffix = ".seg"

// MarkEvery bounds both the memory for finding a record (16 bytes per so many records) and the bytes read to reach it.
const MarkEvery = 256

// File is a file of consecutive records, the first of which has the number First.
type File struct {
	Path   string
	First  uint64
	Count  uint64
	Size   int64   // bytes that hold whole records, and the header
	Damage *Damage // a header that does not verify; nothing behind it can be read
	Torn   bool    // bytes follow that are no whole record: never append behind them

	magic string
	marks []int64 // offset of every MarkEvery-th record
}

// End is the number behind the last record.
func (f *File) End() uint64 { return f.First + f.Count }

// Header is how a file begins: the text that says what it is, then the first number.
func Header(magic string, first uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(magic), first)
}

// New describes a file at path that has nothing but its header yet. It touches no disk.
func New(path, magic string, first uint64) *File {
	return &File{Path: path, First: first, magic: magic, Size: int64(len(magic) + 8)}
}

// A file's name is its first number in digits. A second one with the same first number (the first one is damaged and stays
// as evidence) gets a number behind it.
const nameDigits = 20

// Name is what a file is called; of several with one first number the first attempt is 0.
func Name(first uint64, attempt int) string {
	name := fmt.Sprintf("%0*d", nameDigits, first)
	if attempt > 0 {
		name += "." + strconv.Itoa(attempt)
	}
	return name + Suffix
}

// List finds the files in dir, by first number; of those with the same one the later attempt comes later, and wins where they overlap.
func List(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+Suffix))
	slices.SortFunc(paths, InOrder)
	return paths, err
}

// InOrder is the order of List.
func InOrder(a, b string) int {
	a, b = strings.TrimSuffix(a, Suffix), strings.TrimSuffix(b, Suffix)
	folder := strings.LastIndexByte(a, filepath.Separator) + 1 + nameDigits
	return cmp.Or(strings.Compare(a[:min(folder, len(a))], b[:min(folder, len(b))]), cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// FirstOf is the first number that a file's name says.
func FirstOf(path string) (uint64, error) {
	name := filepath.Base(path)
	if len(name) < nameDigits+len(Suffix) {
		return 0, fmt.Errorf("%s: not a segment's name", path)
	}
	first, err := strconv.ParseUint(name[:nameDigits], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: not a segment's name", path)
	}
	return first, nil
}

// Create makes an empty file and makes its name durable.
func Create(dir, magic string, first uint64) (*File, error) {
	var file *os.File
	err := os.ErrExist
	for attempt := 0; errors.Is(err, os.ErrExist); attempt++ {
		file, err = os.OpenFile(filepath.Join(dir, Name(first, attempt)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	_, err = file.Write(Header(magic, first))
	return New(file.Name(), magic, first), errors.Join(err, file.Sync(), file.Close(), SyncDir(dir))
}

// SyncDir makes names durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open scans the headers of a file's records.
func Open(path, magic string) (*File, error) {
	first, err := FirstOf(path)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	f := New(path, magic, first)
	r := bufio.NewReaderSize(file, 1<<20)
	header := make([]byte, f.Size)
	switch _, err := io.ReadFull(r, header); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.Torn = true // the process ended while the file was made
		return f, nil
	case err != nil:
		return nil, err
	}
	if f.Damage = f.checkHeader(header); f.Damage != nil {
		return f, nil
	}
	return f, f.scan(r)
}

// checkHeader returns nil if the header is this file's.
func (f *File) checkHeader(header []byte) *Damage {
	if string(header) != string(Header(f.magic, f.First)) {
		return &Damage{Number: f.First, Reason: "the segment's header does not verify"}
	}
	return nil
}

func (f *File) scan(r io.Reader) error {
	for {
		rec, err := read(r, f.End())
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			f.Torn = true
			return nil
		case errors.Is(err, errFrame):
			f.Damage = &Damage{Number: f.End(), Reason: err.Error()}
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		f.Add(int64(Overhead + len(rec.Data)))
	}
}

// Add counts a record of so many bytes, framed, that was written behind the last one.
func (f *File) Add(bytes int64) {
	if f.Count%MarkEvery == 0 {
		f.marks = append(f.marks, f.Size)
	}
	f.Count++
	f.Size += bytes
}

// Read returns consecutive records from number from, which the file must hold, as the disk holds them now: at most limit, and about
// maxBytes. The records before damage are returned with a nil error; a read that begins at damage returns *Damage.
func (f *File) Read(from uint64, limit, maxBytes int) ([]Record, error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Damage{Number: from, Reason: "the segment's file is gone"}
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := f.reader(file, from)
	if err != nil {
		return nil, err
	}
	var out []Record
	for n := from; n < f.End() && len(out) < limit && maxBytes > 0; n++ {
		rec, err := read(r, n)
		if err != nil && len(out) > 0 {
			return out, nil // the next read begins here and says it
		}
		if err != nil {
			return nil, f.changed(n, err)
		}
		out = append(out, rec)
		maxBytes -= len(rec.Data)
	}
	return out, nil
}

// reader positions at a record that the file must hold.
// The header is read again: it may have been changed since the file was opened, and that must not wait for the next start.
func (f *File) reader(file *os.File, number uint64) (io.Reader, error) {
	header := make([]byte, len(Header(f.magic, f.First)))
	if _, err := file.ReadAt(header, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if d := f.checkHeader(header); d != nil {
		return nil, d
	}
	n := number - f.First
	from := f.marks[n/MarkEvery]
	r := bufio.NewReader(io.NewSectionReader(file, from, f.Size-from))
	for at := number - n%MarkEvery; at < number; at++ {
		if _, err := read(r, at); err != nil {
			return nil, f.changed(at, err)
		}
	}
	return r, nil
}

// changed reports records that were whole when the file was opened or written and are not any more.
func (f *File) changed(number uint64, err error) error {
	if errors.Is(err, errFrame) || errors.Is(err, errTorn) || errors.Is(err, io.EOF) {
		return &Damage{Number: number, Reason: err.Error()}
	}
	return err
}
