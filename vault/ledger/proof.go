package ledger

import (
	"encoding/json"
	"errors"
	"io"

	"golang.org/x/mod/sumdb/tlog"
)

// proofFormat opens a proof of a key's events.
const proofFormat = "conclave key proof 1"

// Prover writes a proof: the header, then the key's events, each with its path to the root that the checkpoint signs.
type Prover struct{ w io.Writer }

// NewProver writes the header.
func NewProver(w io.Writer, key, checkpoint string, certificates [][]byte) (*Prover, error) {
	b, err := render(header{Format: proofFormat, Key: key, Checkpoint: checkpoint, Certificates: certificates})
	if err != nil {
		return nil, err
	}
	_, err = w.Write(b)
	return &Prover{w: w}, err
}

// Add writes the next event.
func (p *Prover) Add(leaf uint64, data []byte, path []tlog.Hash) error {
	l, _, err := newLine(leaf, data, path)
	if err != nil {
		return findingAt(leaf, "%v", err)
	}
	b, err := render(l)
	if err != nil {
		return err
	}
	_, err = p.w.Write(b)
	return err
}

// proof checks the lines of a proof: that each event is in the tree that was signed, is the key's, and that they are in order. It
// cannot show that none is missing; an export can.
func (rep *Report) proof(in *lines, from string) error {
	if from != "" {
		return finding("a proof of one key's events does not show that the log continues an earlier checkpoint; an export does")
	}
	var next uint64
	for {
		b, err := in.next()
		switch {
		case errors.Is(err, io.EOF):
			if rep.Events == 0 {
				return finding("the file proves no event")
			}
			return nil
		case err != nil:
			return finding("after leaf %d: %v", next, err)
		}
		if next, err = rep.proven(b, next); err != nil {
			return err
		}
	}
}

func (rep *Report) proven(b []byte, least uint64) (next uint64, err error) {
	var place struct{ Leaf uint64 }
	if json.Unmarshal(b, &place) != nil || place.Leaf < least {
		return 0, finding("after leaf %d: the line is not what was proven, or out of order", least)
	}
	l, e, err := parse(b, place.Leaf)
	if err != nil {
		return 0, findingAt(place.Leaf, "%v", err)
	}
	if e.Subject != "key/"+rep.Key {
		return 0, findingAt(place.Leaf, "the event is about %s", e.Subject)
	}
	if l.Leaf >= rep.Checkpoint.Size || tlog.CheckRecord(l.Path, int64(rep.Checkpoint.Size), rep.Checkpoint.Root, int64(l.Leaf), l.Hash) != nil {
		return 0, findingAt(l.Leaf, "the path does not lead to the root that was signed")
	}
	rep.Events++
	rep.Last = newest(rep.Last, e.Time)
	return l.Leaf + 1, nil
}
