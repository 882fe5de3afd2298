package usage

import (
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/vault/segment"
)

// Damage is the first record that a log cannot give back as it was written, or that does not continue the chain.
type Damage struct {
	Path   string
	Number uint64
	Reason string
}

func (d *Damage) Error() string {
	return fmt.Sprintf("usage log: record %d, in %s: %s", d.Number, d.Path, d.Reason)
}

// Summary is what a walk went through.
type Summary struct {
	Segments      int
	First, Next   uint64 // numbers of the first record and behind the last
	Uses, Starts  uint64
	Missing       uint64       // uses that are said to have stayed out
	Head          segment.Hash // beside the last record
	Torn          bool         // the end is cut, as after a crash
	EarlierPruned bool         // it does not begin with the first record that was ever written
}

// readStep bounds what is held in memory while a file is read, in records and bytes.
const (
	readStep      = 1024
	readStepBytes = 1 << 20
)

// Walk reads a log from its first segment to its last and checks every record against the one before; visit may be nil. *Damage names the
// first record that is not as it was written. It may be called beside the process that writes, which it then sees as a torn end.
func Walk(dir string, visit func(Entry) error) (Summary, error) {
	paths, err := segment.List(dir)
	if err != nil {
		return Summary{}, fmt.Errorf("usage log: %w", err)
	}
	var s Summary
	for i, path := range paths {
		w := walker{path: path, visit: func(e Entry) error { return s.count(e, visit) }}
		if i > 0 {
			w.expect, w.follows = &s.Head, s.Next
		}
		f, err := w.file()
		if err != nil {
			return s, err
		}
		if f.Count == 0 && i == len(paths)-1 { // a crash while it was made
			s.Torn = true
			break
		}
		if i == 0 {
			s.First, s.EarlierPruned = f.First, f.First != 0
		}
		s.Segments++
		s.Head, s.Next, s.Torn = w.head, f.End(), f.Torn
		if f.Torn && i < len(paths)-1 {
			return s, w.damage(f.End(), "the file ends inside it, and it is not the last file")
		}
	}
	return s, nil
}

func (s *Summary) count(e Entry, visit func(Entry) error) error {
	switch e.Kind {
	case KindUse:
		s.Uses++
	case KindStart:
		s.Starts++
	case KindGap:
		s.Missing += e.Missing
	}
	if visit == nil {
		return nil
	}
	return visit(e)
}

// walker goes through one segment.
type walker struct {
	path    string
	expect  *segment.Hash // that the segment continues; nil: whatever its link says
	follows uint64        // with expect: the number that it must begin with
	visit   func(Entry) error
	head    segment.Hash
	boot    string
}

func (w *walker) damage(number uint64, reason string) error {
	return &Damage{Path: w.path, Number: number, Reason: reason}
}

// errStop ends a walk early, without an error.
var errStop = errors.New("stop")

// file walks through the whole segment.
func (w *walker) file() (*segment.File, error) {
	f, err := segment.Open(w.path, magic)
	if err != nil {
		return nil, fmt.Errorf("usage log: %w", err)
	}
	if w.expect != nil && f.First != w.follows && (f.Count > 0 || !f.Torn) {
		return f, w.damage(min(w.follows, f.First), fmt.Sprintf("the next file begins with record %d, and %d should follow", f.First, w.follows))
	}
	for at := f.First; at < f.End(); {
		recs, err := f.Read(at, readStep, readStepBytes)
		if err != nil {
			return f, w.readError(err)
		}
		for _, r := range recs {
			if err := w.record(r, r.Number == f.First); err != nil {
				return f, err
			}
		}
		at += uint64(len(recs))
	}
	if f.Damage != nil {
		return f, w.readError(f.Damage)
	}
	return f, nil
}

func (w *walker) readError(err error) error {
	if d := (*segment.Damage)(nil); errors.As(err, &d) {
		return w.damage(d.Number, d.Reason)
	}
	return fmt.Errorf("usage log: %w", err)
}

// record checks one record and shows it.
func (w *walker) record(r segment.Record, first bool) error {
	e, err := decodeEntry(r.Data)
	if err != nil {
		return w.damage(r.Number, err.Error())
	}
	e.Sequence = r.Number
	switch {
	case first != (e.Kind == KindSegment):
		return w.damage(r.Number, "a segment begins with its link to the one before, and has no other")
	case first && w.expect != nil && *w.expect != e.previous:
		return w.damage(r.Number, "the segment does not continue the one before")
	case first:
		w.head = e.previous
	}
	if w.head = chain(w.head, r.Number, r.Data); w.head != r.Hash {
		return w.damage(r.Number, "it was changed, or one before it was")
	}
	if e.Kind == KindSegment || e.Kind == KindStart {
		w.boot = e.Boot
	}
	e.Boot = w.boot
	return w.visit(e)
}
