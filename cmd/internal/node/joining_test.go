package node

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"path/filepath"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/transport"
	"github.com/conclave-vault/conclave/vault"
)

func newAPI(n *node, l net.Listener) *transport.Server {
	return transport.New(transport.Config{
		Node: n.cfg.Node, Vault: n.vault, Listener: l, TLS: transport.TLS(n.certificate(), n.clientAuthorities), Logger: n.log,
	})
}

// join admits a node with a one-time token made through one node, and starts it.
func (w *world) join(id fsm.NodeID, through *process) *process {
	w.t.Helper()
	token := w.newToken(id)
	invitation := w.invite(id, through)
	m, err := w.knock(id, token, invitation, through)
	w.must(err)
	w.must(saveMembership(w.config(id).DataDir, m))
	w.must(token.Close())
	return w.start(id)
}

// invite makes a token and carries it as an operator does: as text.
func (w *world) invite(id fsm.NodeID, through *process) vault.JoinToken {
	w.t.Helper()
	t, _, _, err := through.vault.CreateJoinToken(w.ctx(), w.admin, request(), id, 0)
	w.must(err)
	text, err := t.Reveal()
	w.must(err)
	parsed, err := vault.ParseJoinToken(text)
	w.must(err)
	return parsed
}

// knock is the new node's call.
func (w *world) knock(id fsm.NodeID, token *soft.Token, t vault.JoinToken, at *process) (vault.Membership, error) {
	w.t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(id)}}, token.Identity())
	w.must(err)
	payload, err := vault.JoinRequest(t, describe(w.config(id)), token, csr)
	w.must(err)
	raw, err := cluster.JoinCall(w.ctx(), w.net.Host(string(id)), at.cfg.Cluster.Advertise, [32]byte(t.Fingerprint), payload)
	if err != nil {
		return vault.Membership{}, err
	}
	return vault.JoinReply(raw)
}

// reopenToken opens the token of a node that is not running.
func (w *world) reopenToken(id fsm.NodeID) *soft.Token {
	w.t.Helper()
	token, err := soft.Open(filepath.Join(w.config(id).DataDir, token.SoftFile), pin, cheap)
	w.must(err)
	return token
}
