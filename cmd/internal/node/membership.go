package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/wholefile"
)

// Files of a node's data directory. raft's own are below cluster.
const (
	membershipFile = "membership.json"
	foundingFile   = "founding.entry"
	journalDir     = "log"
	usageDir       = "usage"
	clusterDir     = "cluster"
)

// ErrNoCluster: the data directory belongs to no cluster yet.
var ErrNoCluster = errors.New("this node belongs to no cluster yet; on the cluster's first node run: conclave init --config FILE; on others set join.token_file")

func loadMembership(dir string) (vault.Membership, error) {
	var m vault.Membership
	b, err := os.ReadFile(filepath.Join(dir, membershipFile))
	if errors.Is(err, os.ErrNotExist) {
		return m, ErrNoCluster
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w", membershipFile, err)
	}
	if !whole(m) {
		return m, fmt.Errorf("%s is damaged: a part of it is missing", membershipFile)
	}
	return m, nil
}

func whole(m vault.Membership) bool {
	return m.ClusterID != "" && m.Node != "" && len(m.NodeCA) != 0 && len(m.ClientCA) != 0 && len(m.Certificate) != 0 && len(m.Secrets) != 0
}

// saveMembership makes the node a member, for ever: it refuses a membership with which the node could not start.
func saveMembership(dir string, m vault.Membership) error {
	if !whole(m) {
		return errors.New("the cluster's answer lacks a part of the membership; nothing was written")
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Replace(filepath.Join(dir, membershipFile), b)
}
