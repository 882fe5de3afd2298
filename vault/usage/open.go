package usage

import (
	"errors"
	"fmt"
	"os"

	"github.com/conclave-vault/conclave/vault/segment"
)

// Open opens a node's log and begins it anew with a record of this start; Run writes. What a crash left of a record at the end is cut off. A
// last segment that is damaged otherwise is refused with *Damage: somebody should look at it before more is put behind it.
func Open(cfg Config) (*Log, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = defaultSegmentBytes
	}
	if cfg.Sync == nil {
		cfg.Sync = (*os.File).Sync
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("usage log: %w", err)
	}
	l := &Log{cfg: cfg, kick: make(chan struct{}, 1), stopped: make(chan struct{}), spare: make([]byte, 0, bufferBytes)}
	cut, err := l.resume()
	if err != nil {
		return nil, err
	}
	if l.total, err = sizeOf(cfg.Dir); err != nil {
		return nil, fmt.Errorf("usage log: %w", err)
	}
	l.judgeSize()
	l.pending = newBatch(make([]byte, 0, bufferBytes), l.next)
	if l.file == nil || l.file.Size >= cfg.SegmentBytes {
		l.pending.link = true
		l.next++
	}
	start := Entry{Time: cfg.Now(), Node: cfg.Node, Boot: cfg.Boot, Cut: cut}
	l.add(func(b []byte) []byte { return appendStart(b, &start) })
	if cut > 0 {
		cfg.Logger.Warn("the usage log ended inside a record, as after a crash: it was cut off", "bytes", cut, "record", l.durable)
	}
	return l, nil
}

// resume finds the end of the log and opens it for more. cut is how many bytes of a torn record went.
func (l *Log) resume() (cut uint64, err error) {
	paths, err := segment.List(l.cfg.Dir)
	if err != nil {
		return 0, fmt.Errorf("usage log: %w", err)
	}
	for len(paths) > 0 {
		last := paths[len(paths)-1]
		paths = paths[:len(paths)-1]
		w := walker{path: last, visit: func(Entry) error { return nil }}
		if len(paths) > 0 {
			if w.expect, w.follows, err = endOf(paths[len(paths)-1]); err != nil {
				return 0, err
			}
		}
		f, err := w.file()
		if err != nil {
			return 0, fmt.Errorf("%w; see with: conclave usage verify, and move the file to where it is kept as evidence", err)
		}
		if f.Count == 0 { // a crash while it was made: nothing of it was durable
			if err := errors.Join(os.Remove(last), segment.SyncDir(l.cfg.Dir)); err != nil {
				return 0, fmt.Errorf("usage log: %w", err)
			}
			continue
		}
		l.file, l.head, l.next, l.durable = f, w.head, f.End(), f.End()
		cut, err = l.openEnd()
		if err != nil {
			return 0, fmt.Errorf("usage log: %w", err)
		}
		return cut, nil
	}
	return 0, nil
}

// openEnd opens the last file for appending, without what is torn.
func (l *Log) openEnd() (cut uint64, err error) {
	if l.active, err = os.OpenFile(l.file.Path, os.O_RDWR, 0o600); err != nil {
		return 0, err
	}
	info, err := l.active.Stat()
	if err != nil || !l.file.Torn {
		return 0, err
	}
	l.file.Torn = false
	return uint64(info.Size() - l.file.Size), errors.Join(l.active.Truncate(l.file.Size), l.cfg.Sync(l.active))
}

// endOf is where a segment that is not the last one ends: the hash beside its last record, and the number behind it.
func endOf(path string) (*segment.Hash, uint64, error) {
	f, err := segment.Open(path, magic)
	if err != nil {
		return nil, 0, fmt.Errorf("usage log: %w", err)
	}
	if f.Damage != nil || f.Torn || f.Count == 0 {
		return nil, 0, &Damage{Path: path, Number: f.End(), Reason: "the file is damaged or cut, and it is not the last file"}
	}
	recs, err := f.Read(f.End()-1, 1, readStepBytes)
	if err != nil {
		return nil, 0, fmt.Errorf("usage log: %w", err)
	}
	return &recs[0].Hash, f.End(), nil
}

// Close ends a log that Run does not write any more. Nothing is flushed.
func (l *Log) Close() error { return l.close(nil) }
