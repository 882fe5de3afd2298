package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/conclave-vault/conclave/cluster/store"
)

const (
	raftFile = "raft.db"
	// logCacheEntries keeps the latest entries in memory, which every follower asks for.
	logCacheEntries = 512
	// keptSnapshots is how many snapshots stay: one to use and one to fall back to.
	keptSnapshots = 2
	// snapshotsDir and unfinishedSuffix are raft.FileSnapshotStore's names.
	snapshotsDir, unfinishedSuffix = "snapshots", ".tmp"
)

// disk is raft's state behind the sealer, with everything that must be closed.
type disk struct {
	logs      raft.LogStore // cached
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	fault     *store.Fault
	file      io.Closer // nil: somebody else's
	// incarnation is how many processes the storage has seen, this one included.
	incarnation uint64
}

// openDisk opens and checks raft's state.
func openDisk(cfg *Config, log *slog.Logger) (*disk, error) {
	inner, file, err := openStorage(cfg, log)
	if err != nil {
		return nil, err
	}
	fault := store.NewFault()
	sealed := store.New(inner.Logs, inner.Stable, cfg.Sealer, fault)
	d := &disk{stable: sealed, snapshots: store.NewSnapshots(inner.Snapshots, fault), fault: fault, file: file}
	snapshot, err := latest(inner.Snapshots)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	if err := sealed.Verify(snapshot); err != nil {
		return nil, errors.Join(err, d.close())
	}
	if d.incarnation, err = begin(sealed, inner.Snapshots); err != nil {
		return nil, errors.Join(fmt.Errorf("counting this process: %w", err), d.close())
	}
	if d.logs, err = raft.NewLogCache(logCacheEntries, sealed); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// latest is the index of the latest snapshot; 0 if there is none.
func latest(s raft.SnapshotStore) (uint64, error) {
	all, err := s.List() // newest first
	if err != nil {
		return 0, fmt.Errorf("listing snapshots: %w", err)
	}
	if len(all) == 0 {
		return 0, nil
	}
	return all[0].Index, nil
}

// incarnationKey of the stable store.
var incarnationKey = []byte("conclave/incarnation")

// begin counts this process, on the disk, before it does anything. So the younger of two processes that run on copies of one
// storage is known, and so is the first of all, which has nobody before it.
func begin(s *store.Store, snapshots raft.SnapshotStore) (uint64, error) {
	before, err := s.GetUint64(incarnationKey)
	if err != nil && !store.Absent(err) {
		return 0, err
	}
	if before == 0 {
		used, err := raft.HasExistingState(s, s, snapshots)
		if err != nil {
			return 0, err
		}
		if used { // by a release that did not count
			before = 1
		}
	}
	return before + 1, s.SetUint64(incarnationKey, before+1)
}

func openStorage(cfg *Config, log *slog.Logger) (*Storage, io.Closer, error) {
	if cfg.Storage != nil {
		return cfg.Storage, nil, nil
	}
	// 0700: what lies there is sealed one day, but never anybody else's business.
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("data directory: %w", err)
	}
	bolt, err := store.OpenBolt(filepath.Join(cfg.DataDir, raftFile))
	if err != nil {
		return nil, nil, err
	}
	if err := removeUnfinished(filepath.Join(cfg.DataDir, snapshotsDir)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshots: %w", err), bolt.Close())
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(cfg.DataDir, keptSnapshots, newBridge(log, "snapshots"))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshots: %w", err), bolt.Close())
	}
	return &Storage{Logs: bolt, Stable: bolt, Snapshots: snapshots}, bolt, nil
}

// removeUnfinished removes what processes leave that end while they take a snapshot, or are sent one: raft passes it by, for ever. The lock on the
// log file says that nobody is at it.
func removeUnfinished(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), unfinishedSuffix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func (d *disk) close() error {
	if d.file == nil {
		return nil
	}
	return d.file.Close()
}
