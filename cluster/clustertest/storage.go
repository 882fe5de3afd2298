package clustertest

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster"
)

// NewStorage returns empty storage in memory. Give the same one to the next process of a node to restart it.
func NewStorage() *cluster.Storage {
	kept := raft.NewInmemStore()
	return &cluster.Storage{Logs: kept, Stable: kept, Snapshots: &snapshots{}}
}

// snapshots keeps the latest finished snapshot.
type snapshots struct {
	mu     sync.Mutex
	count  int
	latest *snapshot
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
