package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Store is a raft.LogStore and raft.StableStore that seals what it hands to the stores below.
type Store struct {
	logs   raft.LogStore
	stable raft.StableStore
	sealer Sealer
	fault  *Fault
}

// New puts sealer on top of logs and stable, which may be the same object. Failures are latched in fault.
func New(logs raft.LogStore, stable raft.StableStore, sealer Sealer, fault *Fault) *Store {
	return &Store{logs: logs, stable: stable, sealer: sealer, fault: fault}
}

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	return s.bound("reading the first log index", s.logs.FirstIndex)
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	return s.bound("reading the last log index", s.logs.LastIndex)
}

func (s *Store) bound(doing string, read func() (uint64, error)) (index uint64, err error) {
	err = s.fault.guard(doing, func() error {
		index, err = read()
		return err
	})
	return index, err
}

// GetLog implements raft.LogStore. It returns raft.ErrLogNotFound, unwrapped as raft compares it, if there is no such entry.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	if err := s.fault.Err(); err != nil {
		return err
	}
	var stored raft.Log
	err := s.logs.GetLog(index, &stored)
	if errors.Is(err, raft.ErrLogNotFound) {
		return raft.ErrLogNotFound
	}
	if err == nil {
		err = s.open(index, &stored)
	}
	if err != nil {
		return s.fault.trip(fmt.Sprintf("reading log entry %d", index), err)
	}
	*log = stored
	return nil
}

// open replaces the sealed data of an entry by what was sealed.
func (s *Store) open(index uint64, l *raft.Log) error {
	if l.Index != index {
		return fmt.Errorf("%w: entry calls itself %d", ErrDamaged, l.Index)
	}
	plaintext, err := s.sealer.Open(logRecord(l), l.Data)
	if err != nil {
		return err
	}
	l.Data, l.Extensions, err = splitPayload(plaintext)
	return err
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	return s.fault.guard("writing log entries", func() error {
		sealed := make([]*raft.Log, len(logs))
		for i, l := range logs {
			data, err := s.sealer.Seal(logRecord(l), joinPayload(l))
			if err != nil {
				return err
			}
			// AppendedAt stays outside the seal: raft uses it for metrics only.
			sealed[i] = &raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, Data: data, AppendedAt: l.AppendedAt}
		}
		return s.logs.StoreLogs(sealed)
	})
}

// DeleteRange implements raft.LogStore.
func (s *Store) DeleteRange(lowest, highest uint64) error {
	return s.fault.guard("deleting log entries", func() error { return s.logs.DeleteRange(lowest, highest) })
}

// Set implements raft.StableStore.
func (s *Store) Set(key, value []byte) error {
	return s.fault.guard("writing "+string(key), func() error {
		sealed, err := s.sealer.Seal(stableRecord(key), value)
		if err != nil {
			return err
		}
		return s.stable.Set(key, sealed)
	})
}

// errAbsent is how raft knows a missing value: by the text "not found", not by identity.
const errAbsent = "not found"

// Get implements raft.StableStore. A missing value's error is the inner store's, untouched.
func (s *Store) Get(key []byte) ([]byte, error) {
	if err := s.fault.Err(); err != nil {
		return nil, err
	}
	sealed, err := s.stable.Get(key)
	if Absent(err) {
		return nil, err
	}
	var value []byte
	if err == nil {
		value, err = s.sealer.Open(stableRecord(key), sealed)
	}
	if err != nil {
		return nil, s.fault.trip("reading "+string(key), err)
	}
	return value, nil
}

// Absent reports whether Get or GetUint64 found nothing under the key. Raft has no better way to say so than a text.
func Absent(err error) bool { return err != nil && err.Error() == errAbsent }

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s *Store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, s.fault.trip("reading "+string(key), fmt.Errorf("%w: %d bytes are no number", ErrDamaged, len(value)))
	}
	return binary.BigEndian.Uint64(value), nil
}

// Verify reads every log entry once, so that damage is a clear error when a node starts and not a panic inside raft later. Entries up
// to the index of the latest snapshot may be missing: who was brought back by one keeps trailing entries from before it, and the
// log goes on behind it.
func (s *Store) Verify(snapshot uint64) error {
	first, err := s.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if i <= snapshot && errors.Is(err, raft.ErrLogNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("log entries %d to %d: entry %d: %w", first, last, i, err)
		}
	}
	return nil
}

func logRecord(l *raft.Log) Record {
	return Record{Kind: KindLog, Index: l.Index, Term: l.Term, Type: l.Type}
}

func stableRecord(key []byte) Record { return Record{Kind: KindStable, Key: string(key)} }

// joinPayload puts data and extensions into one sealed plaintext: length of data (uvarint), data, extensions.
func joinPayload(l *raft.Log) []byte {
	out := make([]byte, 0, binary.MaxVarintLen64+len(l.Data)+len(l.Extensions))
	out = binary.AppendUvarint(out, uint64(len(l.Data)))
	out = append(out, l.Data...)
	return append(out, l.Extensions...)
}

// splitPayload undoes joinPayload. Empty parts come back nil, as they come back from raft's own codec.
func splitPayload(p []byte) (data, extensions []byte, err error) {
	n, size := binary.Uvarint(p)
	if size <= 0 || n > uint64(len(p)-size) {
		return nil, nil, fmt.Errorf("%w: length of data is wrong", ErrDamaged)
	}
	p = p[size:]
	return nonEmpty(p[:n:n]), nonEmpty(p[n:]), nil
}

func nonEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
