package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/conclave-vault/conclave/fsm"
)

// maxLine bounds one line of an export or a proof: a record in base64, its event in JSON, a path; and the header with 64
// certificates.
const maxLine = 2 << 20

// timeForm is the time of an event in lines: RFC 3339 with the milliseconds that the log keeps.
const timeForm = "2006-01-02T15:04:05.000Z07:00"

// header is the first line of a file. What follows are one line for each record.
type header struct {
	Format       string   `json:"format"`
	Key          string   `json:"key,omitempty"` // of a proof: the key whose events follow
	Checkpoint   string   `json:"checkpoint"`
	Certificates [][]byte `json:"certificates"`
}

// line is a record: what is hashed, its hash, the same for people, and in a proof the path to the root.
type line struct {
	Leaf  uint64      `json:"leaf"`
	Event event       `json:"event"`
	Data  []byte      `json:"data"`
	Hash  tlog.Hash   `json:"hash"`
	Path  []tlog.Hash `json:"path,omitempty"`
}

type event struct {
	Index     uint64 `json:"index"`
	Time      string `json:"time"`
	Actor     string `json:"actor"`
	Action    string `json:"action"`
	Subject   string `json:"subject"`
	SubjectID string `json:"subject_id,omitempty"`
	Version   uint32 `json:"version,omitempty"`
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Reason    string `json:"reason,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// newLine decodes a record for people; its leaf number is inside the hashed bytes too.
func newLine(leaf uint64, data []byte, path []tlog.Hash) (line, fsm.Event, error) {
	e, err := fsm.DecodeEvent(data)
	if err != nil {
		return line{}, e, err
	}
	if e.Leaf != leaf {
		return line{}, e, fmt.Errorf("the record calls itself leaf %d", e.Leaf)
	}
	return line{
		Leaf: leaf, Data: data, Hash: tlog.RecordHash(data), Path: path,
		Event: event{
			Index: e.Index, Time: e.Time.UTC().Format(timeForm), Actor: string(e.Actor), Action: e.Action, Subject: e.Subject, SubjectID: e.SubjectID,
			Version: uint32(e.Version), From: e.From, To: e.To, Reason: e.Reason, RequestID: string(e.RequestID), Detail: e.Detail,
		},
	}, e, nil
}

// render is the one form of a line, with its end.
func render(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}

// errLong: a line is longer than any that is ever written.
var errLong = errors.New("a line is too long")

// lines reads a file line by line, bounded.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReaderSize(r, 64<<10)} }

// next returns a line with its end. io.EOF at the clean end, io.ErrUnexpectedEOF for a last line without an end.
func (l *lines) next() ([]byte, error) {
	var b []byte
	for {
		part, err := l.r.ReadSlice('\n')
		b = append(b, part...)
		switch {
		case len(b) > maxLine:
			return nil, errLong
		case err == nil:
			return b, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(b) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// decode reads one line into v and expects that it is exactly what v is rendered as, so that no byte of a file is without
// meaning: the text for people cannot say something else than the bytes that were hashed.
func decode(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errors.New("the line is not what was exported")
	}
	again, err := render(v)
	if err != nil || !bytes.Equal(again, b) {
		return errors.New("the line is not what was exported")
	}
	return nil
}

// parse reads a line and checks it against the record in it.
func parse(b []byte, leaf uint64) (line, fsm.Event, error) {
	var l line
	if err := decode(b, &l); err != nil {
		return l, fsm.Event{}, err
	}
	if tlog.RecordHash(l.Data) != l.Hash {
		return l, fsm.Event{}, errors.New("the record does not match the hash beside it")
	}
	want, e, err := newLine(leaf, l.Data, l.Path)
	if err != nil {
		return l, e, err
	}
	if want.Event != l.Event || l.Leaf != leaf {
		return l, e, errors.New("the text does not say what the record says")
	}
	return l, e, nil
}

// newest keeps the time of the last event, for the report.
func newest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
