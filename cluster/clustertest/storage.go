package clustertest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
)

// NewStorage returns empty storage in memory. Give the same one to the next process of a node to restart it.
func NewStorage() *cluster.Storage {
	kept := newStore()
	return &cluster.Storage{Logs: kept, Stable: kept, Snapshots: &snapshots{}}
}

// CopyStorage copies what NewStorage made, as an image of a disk is taken: a process may be at it.
func CopyStorage(s *cluster.Storage) (*cluster.Storage, error) {
	logs, err := s.Logs.(*store).copy()
	if err != nil {
		return nil, err
	}
	// After the log: what is not in it any more is in the snapshot.
	return &cluster.Storage{Logs: logs, Stable: logs, Snapshots: s.Snapshots.(*snapshots).copy()}, nil
}

// store is a log and stable values. It knows what was written, because raft.InmemStore cannot be asked.
type store struct {
	*raft.InmemStore
	mu      sync.RWMutex // held by writers together, and by who copies alone
	written sync.Map     // stable keys, to whether their values are numbers
}

func newStore() *store { return &store{InmemStore: raft.NewInmemStore()} }

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *store) StoreLogs(logs []*raft.Log) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.InmemStore.StoreLogs(logs)
}

func (s *store) DeleteRange(first, last uint64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.InmemStore.DeleteRange(first, last)
}

func (s *store) Set(key, value []byte) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.written.Store(string(key), false)
	return s.InmemStore.Set(key, value)
}

func (s *store) SetUint64(key []byte, value uint64) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.written.Store(string(key), true)
	return s.InmemStore.SetUint64(key, value)
}

func (s *store) copy() (*store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := newStore()
	err := s.copyLog(to)
	s.written.Range(func(key, number any) bool {
		err = errors.Join(err, s.copyValue(to, []byte(key.(string)), number.(bool)))
		return true
	})
	return to, err
}

func (s *store) copyLog(to *store) error {
	first, err := s.FirstIndex()
	if err != nil || first == 0 {
		return err
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		err := s.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) {
			continue // a snapshot that was installed leaves a hole before what came after it
		}
		if err != nil {
			return err
		}
		if err := to.StoreLog(&l); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) copyValue(to *store, key []byte, number bool) error {
	if number {
		value, err := s.GetUint64(key)
		return errors.Join(err, to.SetUint64(key, value))
	}
	value, err := s.Get(key)
	return errors.Join(err, to.Set(key, value))
}

// snapshots keeps the latest finished snapshot.
type snapshots struct {
	mu     sync.Mutex
	count  int
	latest *snapshot
}

func (s *snapshots) copy() *snapshots {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &snapshots{count: s.count, latest: s.latest} // a finished one does not change any more
}

type snapshot struct {
	store *snapshots
	meta  raft.SnapshotMeta
	data  bytes.Buffer
}

func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return &snapshot{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, s.count), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}}, nil
}

func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, nil
	}
	meta := s.latest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || s.latest.meta.ID != id {
		return nil, nil, fmt.Errorf("clustertest: no snapshot %q", id)
	}
	meta := s.latest.meta
	return &meta, io.NopCloser(bytes.NewReader(s.latest.data.Bytes())), nil
}

func (s *snapshot) Write(p []byte) (int, error) { return s.data.Write(p) }
func (s *snapshot) ID() string                  { return s.meta.ID }
func (s *snapshot) Cancel() error               { return nil }

func (s *snapshot) Close() error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.meta.Size = int64(s.data.Len())
	s.store.latest = s
	return nil
}
