package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked reports that another process has the file open.
var ErrLocked = errors.New("store: another process uses this data directory")

// lockWait is how long OpenBolt waits for the file's lock: a predecessor that is just ending gets the time to let go.
const lockWait = time.Second

// Bolt is raft's log and stable values in one bbolt file, which bbolt locks for this process.
type Bolt interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// OpenBolt opens or creates the file at path.
func OpenBolt(path string) (Bolt, error) {
	b, err := raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout: lockWait,
			// The free list is rebuilt at start instead of being written with every commit: a raft log only appends and
			// deletes ranges, so the list is long and each write of it would cost more than the entry.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return b, nil
}
