package node

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/vault"
)

// joinTimeout bounds one try with one address; joinPause spaces rounds over all of them.
const (
	joinTimeout = 10 * time.Second
	joinPause   = time.Second
	joinRounds  = 10
	maxToken    = 16 << 10
)

// join reads who this node is; if it belongs to no cluster yet, it joins with its one-time token.
func (n *node) join(ctx context.Context) error {
	var err error
	n.membership, err = loadMembership(n.cfg.DataDir)
	if errors.Is(err, ErrNoCluster) && n.cfg.Join.TokenFile != "" {
		n.membership, err = n.joinWith(ctx)
		if err == nil {
			err = saveMembership(n.cfg.DataDir, n.membership)
		}
	}
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if n.membership.Node != describe(n.cfg).ID {
		return fmt.Errorf("this data directory is node %q's and the configuration says %q: a node keeps its name", n.membership.Node, n.cfg.Node)
	}
	return nil
}

func (n *node) joinWith(ctx context.Context) (vault.Membership, error) {
	text, err := config.ReadPrivate(n.cfg.Join.TokenFile, maxToken)
	if err != nil {
		return vault.Membership{}, fmt.Errorf("join.token_file: %w", err)
	}
	t, err := vault.ParseJoinToken(string(text))
	if err != nil {
		return vault.Membership{}, fmt.Errorf("join.token_file: %w", err)
	}
	if string(t.Node) != n.cfg.Node {
		return vault.Membership{}, fmt.Errorf("the join token is for node %q and this is %q", t.Node, n.cfg.Node)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: n.cfg.Node}}, n.token.Identity())
	if err != nil {
		return vault.Membership{}, err
	}
	payload, err := vault.JoinRequest(t, describe(n.cfg), n.token, csr)
	if err != nil {
		return vault.Membership{}, err
	}
	return n.askToJoin(ctx, t, payload)
}

// askToJoin goes round the addresses of the token until one node gives an answer.
func (n *node) askToJoin(ctx context.Context, t vault.JoinToken, payload []byte) (vault.Membership, error) {
	var last error
	for range joinRounds {
		for _, addr := range t.Addresses {
			m, err := joinAt(ctx, addr, t, payload)
			if err == nil {
				n.log.Info("joined", "cluster", m.ClusterID, "through", addr)
				return m, nil
			}
			if !errors.Is(err, vault.ErrUnavailable) && !errors.Is(err, cluster.ErrUnreachable) {
				return m, err
			}
			last = err
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return vault.Membership{}, ctx.Err()
		}
	}
	return vault.Membership{}, fmt.Errorf("no node of the cluster could admit this one: %w", last)
}

func joinAt(ctx context.Context, addr string, t vault.JoinToken, payload []byte) (vault.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	raw, err := cluster.JoinCall(ctx, nil, addr, [32]byte(t.Fingerprint), payload)
	if err != nil {
		return vault.Membership{}, err
	}
	return vault.JoinReply(raw)
}

// wanLease fits the WAN timers: it must outlast an election.
func wanLease() lease.Config {
	return lease.Config{D: 10 * time.Second, Available: lease.Default().Available, Rho: lease.Default().Rho}
}
