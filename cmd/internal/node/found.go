package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/wholefile"
)

// mayFound says why this node is not to found a cluster; nil if it is.
func mayFound(cfg config.Config) error {
	if _, err := loadMembership(cfg.DataDir); !errors.Is(err, ErrNoCluster) {
		return errors.Join(fmt.Errorf("%s belongs to a cluster already; nothing was changed", cfg.DataDir), err)
	}
	if cfg.Join.TokenFile != "" {
		return errors.New("join.token_file is set: this node is to join a cluster, not to found one")
	}
	return nil
}

// Init founds a cluster on this node: token, keys, authorities, the first log entry. It starts nothing; the entry is proposed at
// the node's first start. It refuses to run twice. deliver gets the first administrator's certificate and the certificate (DER) of
// the authority that signs nodes; if it fails there is no cluster.
func Init(cfg config.Config, dev bool, admin string, key crypto.PublicKey, life time.Duration, deliver func(cert *x509.Certificate, ca []byte) error) (err error) {
	if err := mayFound(cfg); err != nil {
		return err
	}
	// An init that was interrupted after it made the token is taken up.
	token, err := token.OpenOrCreate(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	f, cert, err := vault.Found(describe(cfg), token, dev, vault.Administrator{Name: admin, Key: key, Life: life}, time.Now())
	if err != nil {
		return err
	}
	// The membership last, because with it the founding is over: without the entry the cluster would never begin, and without the
	// administrator's certificate it would be nobody's.
	if err := wholefile.Replace(filepath.Join(cfg.DataDir, foundingFile), f.Entry); err != nil {
		return err
	}
	if err := deliver(cert, f.Membership.NodeCA); err != nil {
		return err
	}
	return saveMembership(cfg.DataDir, f.Membership)
}

func describe(cfg config.Config) vault.Description {
	return vault.Description{
		ID: fsm.NodeID(cfg.Node), Datacenter: cfg.Datacenter, ClusterAddr: cfg.Cluster.Advertise, APIAddr: cfg.API.Advertise,
	}
}

// founding returns the first entry while it has not been applied.
func (n *node) founding() ([]byte, bool) {
	b, err := os.ReadFile(filepath.Join(n.cfg.DataDir, foundingFile))
	return b, err == nil
}

// found proposes the first entry once this node leads, and forgets it when the state shows it.
func (n *node) found(ctx context.Context) error {
	entry, pending := n.founding()
	for pending && ctx.Err() == nil {
		if n.replica.State().Initialised() {
			pending = false
			break
		}
		if n.cluster.IsLeader() {
			if _, _, err := n.cluster.Propose(ctx, entry); err != nil && ctx.Err() == nil {
				n.log.Info("the first entry is not committed yet", "err", err)
			}
		}
		select {
		case <-n.replica.Changed():
		case <-time.After(100 * time.Millisecond): // leadership comes without an entry
		case <-ctx.Done():
		}
	}
	if !pending {
		if err := os.Remove(filepath.Join(n.cfg.DataDir, foundingFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}
