package node

import (
	"path/filepath"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/vault"
)

// TokenPath is where the embedded token of a data directory lies; its lock file has ".lock" behind it.
func TokenPath(dir string) string { return filepath.Join(dir, token.SoftFile) }

// Locks are the files of a data directory on which a running server has a lock: the embedded token's if it has one, and the log's.
func Locks(dir string) []string {
	return []string{TokenPath(dir) + ".lock", filepath.Join(dir, clusterDir, "raft.db")}
}

// LoadMembership reads to which cluster the node of a data directory belongs. ErrNoCluster: to none yet.
func LoadMembership(dir string) (vault.Membership, error) { return loadMembership(dir) }
