package usage

import (
	"errors"
	"slices"
	"time"

	"github.com/conclave-vault/conclave/vault/segment"
)

// Query says which records are wanted.
type Query struct {
	From  uint64 // number of the first to look at
	Limit int    // of records returned
	KeyID string // empty: of every key
	Since time.Time
}

// Page is an answer. Next is the number to go on with; it is behind everything when Done.
type Page struct {
	Entries []Entry
	Next    uint64
	Done    bool
}

// pageSegments bounds how many segments one query reads through: some tens of milliseconds.
const pageSegments = 4

func (q Query) wants(e Entry) bool {
	return (q.KeyID == "" || q.KeyID == e.KeyID) && !e.Time.Before(q.Since)
}

// Read returns durable records as the disk holds them now, the oldest first, each checked against the one before. It looks at a bounded
// stretch: a page may be short, and even empty, before the end.
func (l *Log) Read(q Query) (Page, error) {
	l.mu.Lock()
	durable := l.durable
	l.mu.Unlock()
	paths, err := segment.List(l.cfg.Dir)
	if err != nil {
		return Page{}, err
	}
	p := Page{Next: q.From}
	for range pageSegments {
		path, next := segmentOf(paths, p.Next)
		if path == "" || p.Next >= durable {
			p.Done = true
			return p, nil
		}
		if err := p.collect(path, q, durable); err != nil || len(p.Entries) == q.Limit {
			return p, err
		}
		if next == "" {
			p.Done = p.Next >= durable
			return p, nil
		}
		first, err := segment.FirstOf(next)
		if err != nil {
			return p, err
		}
		p.Next = max(p.Next, first)
	}
	return p, nil
}

// segmentOf finds the file that a number is in, or the first one behind it if it was moved away, and the file after that.
func segmentOf(paths []string, number uint64) (path, next string) {
	for i, p := range slices.Backward(paths) {
		first, err := segment.FirstOf(p)
		if err == nil && (first <= number || i == 0) {
			if i+1 < len(paths) {
				next = paths[i+1]
			}
			return p, next
		}
	}
	return "", ""
}

// collect takes what is wanted of one file.
func (p *Page) collect(path string, q Query, durable uint64) error {
	w := walker{path: path, visit: func(e Entry) error {
		switch {
		case e.Sequence >= durable || len(p.Entries) == q.Limit:
			return errStop
		case e.Sequence < p.Next:
			return nil
		}
		p.Next = e.Sequence + 1
		if e.Kind == KindUse && q.wants(e) {
			p.Entries = append(p.Entries, e)
		}
		return nil
	}}
	_, err := w.file()
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
