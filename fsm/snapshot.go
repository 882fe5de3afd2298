package fsm

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// A snapshot is: the magic line with the format's number; records, each behind its length in four bytes; a length of zero;
// SHA-256 over everything before. The first record is the header; the others follow in the state's order.
//
// Format 2 has a CRC-32C of each record behind its length, so that damage is found at the record, before it is decoded, and named. It
// is written from feature level 2 on, so that nobody gets a snapshot that he cannot read; a release reads the newest format and
// the one before.
const (
	snapshotMagic1 = "conclave state snapshot 1\n"
	snapshotMagic2 = "conclave state snapshot 2\n" // as long as the other

	levelOfFormat2 = 2
)

func (s *State) snapshotMagic() string {
	if s.FeatureLevel() >= levelOfFormat2 {
		return snapshotMagic2
	}
	return snapshotMagic1
}

// frameSize is the number of bytes before a record: its length, and from format 2 on its CRC-32C.
func frameSize(magic string) int {
	if magic == snapshotMagic1 {
		return 4
	}
	return 8
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxRecord bounds one record: a key of MaxVersions versions has about 6 MiB.
const maxRecord = 16 << 20

// WriteSnapshot streams the state. It never blocks an apply: the state is immutable.
func (s *State) WriteSnapshot(w io.Writer) error {
	sum := sha256.New()
	buffered := bufio.NewWriterSize(w, 64<<10)
	out := io.MultiWriter(buffered, sum)
	magic := s.snapshotMagic()
	if _, err := io.WriteString(out, magic); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	frame := &frameWriter{w: out, head: frameSize(magic)}
	if err := s.records(frame.write); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	if _, err := out.Write(make([]byte, 4)); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	if _, err := buffered.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	return nil
}

// frameWriter writes records in one buffer.
type frameWriter struct {
	w    io.Writer
	head int
	buf  []byte
}

func (f *frameWriter) write(r *fsmpb.Record) error {
	buf, err := proto.MarshalOptions{}.MarshalAppend(append(f.buf[:0], make([]byte, f.head)...), r)
	if err != nil {
		return err
	}
	f.buf = buf
	body := buf[f.head:]
	if len(body) > maxRecord {
		panic(fmt.Sprintf("fsm: a snapshot record of %d bytes, the limit is %d", len(body), maxRecord)) // limits.go forbids it
	}
	binary.BigEndian.PutUint32(buf, uint32(len(body)))
	if f.head > 4 {
		binary.BigEndian.PutUint32(buf[4:], crc32.Checksum(body, castagnoli))
	}
	_, err = f.w.Write(buf)
	return err
}

// records yields the whole state: the header, then each table in the order of its keys.
func (s *State) records(yield func(*fsmpb.Record) error) error {
	w := &recordWriter{yield: yield}
	w.put(&fsmpb.Record{Kind: &fsmpb.Record_Header{Header: headerToWire(s)}})
	s.beforeKeys(w)
	s.keys.Scan(func(_ KeyName, k *Key) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Key{Key: keyToWire(*k)}})
	})
	s.afterKeys(w)
	return w.err
}

// beforeKeys, the keys and afterKeys are all records but the header.
func (s *State) beforeKeys(w *recordWriter) {
	for _, n := range s.nodes.Values() {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Node{Node: nodeToWire(*n)}})
	}
	for _, t := range s.tokens.Values() {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Token{Token: tokenToWire(*t)}})
	}
	s.certificates.Scan(func(_ string, c *Certificate) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Certificate{Certificate: certificateToWire(*c)}})
	})
	for _, r := range s.rosters {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Roster{Roster: rosterToWire(r)}})
	}
	if s.master != nil {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Master{Master: masterToWire(*s.master)}})
	}
	for _, c := range s.ceremonies {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Ceremony{Ceremony: ceremonyToWire(c)}})
	}
	s.classes.Scan(func(_ string, c *Class) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Class{Class: classToWire(*c)}})
	})
}

func (s *State) afterKeys(w *recordWriter) {
	s.useRecords(w)
	s.barriers.Scan(func(_ uint64, b PendingBarrier) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Barrier{Barrier: barrierToWire(b)}})
	})
	s.requests.Scan(func(key requestKey, r *request) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Request{Request: requestToWire(key, r)}})
	})
}

// recordWriter keeps the first error, after which nothing is written.
type recordWriter struct {
	yield func(*fsmpb.Record) error
	err   error
}

func (w *recordWriter) put(r *fsmpb.Record) bool {
	if w.err == nil {
		w.err = w.yield(r)
	}
	return w.err == nil
}

// readSnapshot is total and verifies before it believes: it returns a state only if every record is well formed, they fit
// together, and the checksum is right. What it allocates is bounded by what it reads.
func readSnapshot(r io.Reader) (*State, error) {
	in := &summingReader{in: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	magic := make([]byte, len(snapshotMagic2))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != snapshotMagic1 && string(magic) != snapshotMagic2 {
		return nil, fmt.Errorf("%w: it begins neither with %q nor with %q", ErrSnapshot, snapshotMagic2, snapshotMagic1)
	}
	s := newRestoration()
	for n := 0; ; n++ {
		record, err := in.record(frameSize(string(magic)))
		if err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", ErrSnapshot, n, err)
		}
		if record == nil {
			break
		}
		if err := s.restore(record, n == 0); err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", ErrSnapshot, n, err)
		}
	}
	if err := in.trailer(); err != nil {
		return nil, err
	}
	if string(magic) != s.snapshotMagic() {
		return nil, snapshotError("its format is not that of its feature level")
	}
	return s.finish()
}

// summingReader hashes what it reads.
type summingReader struct {
	in   *bufio.Reader
	sum  hash.Hash
	head [8]byte
	body []byte // of one record at a time
}

func (r *summingReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	r.sum.Write(b[:n])
	return n, err
}

// record returns nil at the end mark.
func (r *summingReader) record(frame int) (*fsmpb.Record, error) {
	head := r.head[:]
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, errors.New("it ends early")
	}
	size := binary.BigEndian.Uint32(head)
	switch {
	case size == 0:
		return nil, nil
	case size > maxRecord:
		return nil, fmt.Errorf("%d bytes, the limit is %d", size, maxRecord)
	}
	if _, err := io.ReadFull(r, head[4:frame]); err != nil {
		return nil, errors.New("it ends early")
	}
	if err := r.fill(int(size)); err != nil {
		return nil, err
	}
	if frame > 4 && crc32.Checksum(r.body, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errors.New("its checksum is wrong")
	}
	record := new(fsmpb.Record)
	if unknown, err := unmarshal(r.body, record); err != nil || unknown {
		return nil, errors.New("it is malformed or of a newer release")
	}
	return record, nil
}

// fill reads a body. Its room grows with what really comes, whatever the length says.
func (r *summingReader) fill(size int) error {
	r.body = r.body[:0]
	for len(r.body) < size {
		next := min(size-len(r.body), 64<<10)
		r.body = slices.Grow(r.body, next)
		n, err := io.ReadFull(r, r.body[len(r.body):len(r.body)+next])
		r.body = r.body[:len(r.body)+n]
		if err != nil {
			return fmt.Errorf("it ends after %d of %d bytes", len(r.body), size)
		}
	}
	return nil
}

func (r *summingReader) trailer() error {
	want := r.sum.Sum(nil)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(r.in, have); err != nil || !bytes.Equal(have, want) {
		return fmt.Errorf("%w: the checksum is missing or wrong", ErrSnapshot)
	}
	if _, err := r.in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrSnapshot)
	}
	return nil
}
