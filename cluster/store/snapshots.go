package store

import (
	"io"

	"github.com/hashicorp/raft"
)

// Snapshots is a raft.SnapshotStore that latches failures of the disk: raft itself only logs them and goes on.
//
// It adds no checksum: raft.FileSnapshotStore keeps a CRC-64 of the content in the metadata and refuses to open a snapshot
// that does not match it.
type Snapshots struct {
	inner raft.SnapshotStore
	fault *Fault
}

// NewSnapshots wraps inner.
func NewSnapshots(inner raft.SnapshotStore, fault *Fault) *Snapshots {
	return &Snapshots{inner: inner, fault: fault}
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	var sink raft.SnapshotSink
	err := s.fault.guard("creating a snapshot", func() (err error) {
		sink, err = s.inner.Create(version, index, term, configuration, configurationIndex, trans)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &snapshotSink{SnapshotSink: sink, fault: s.fault}, nil
}

// List implements raft.SnapshotStore.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) { return s.inner.List() }

// Open implements raft.SnapshotStore. A snapshot that cannot be opened does not stop the node: raft tries an older one.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	return s.inner.Open(id)
}

type snapshotSink struct {
	raft.SnapshotSink
	fault *Fault
}

func (s *snapshotSink) Write(p []byte) (n int, err error) {
	err = s.fault.guard("writing a snapshot", func() error {
		n, err = s.SnapshotSink.Write(p)
		return err
	})
	return n, err
}

func (s *snapshotSink) Close() error {
	return s.fault.guard("finishing a snapshot", s.SnapshotSink.Close)
}
