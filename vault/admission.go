package vault

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Lifetimes of join tokens.
const (
	defaultTokenLife = 15 * time.Minute
	maxTokenLife     = 24 * time.Hour
	tokenSecretSize  = 32
	maxTokenText     = 8 << 10
	// maxTokenAddresses of at most 261 bytes each fit into maxTokenText.
	maxTokenAddresses = 16
)

// JoinToken is what an operator carries to a new node: a one-time secret, and what the node needs to know the cluster for sure.
type JoinToken struct {
	hsm.Redacted
	Cluster     string
	Node        fsm.NodeID
	ID          string
	Secret      []byte
	Fingerprint []byte // SHA-256 of the node CA's SubjectPublicKeyInfo
	Addresses   []string
}

// revealedToken is the form inside a token's text, and the only one that shows the secret.
type revealedToken struct {
	Cluster     string     `json:"cluster"`
	Node        fsm.NodeID `json:"node"`
	ID          string     `json:"id"`
	Secret      []byte     `json:"secret"`
	Fingerprint []byte     `json:"ca"`
	Addresses   []string   `json:"addresses"`
}

const tokenPrefix = "conclave-join-1."

// Reveal returns the token as the operator gets it. Nothing else shows it.
func (t JoinToken) Reveal() (string, error) {
	b, err := json.Marshal(revealedToken{
		Cluster: t.Cluster, Node: t.Node, ID: t.ID, Secret: t.Secret, Fingerprint: t.Fingerprint, Addresses: t.Addresses,
	})
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b), err
}

// ParseJoinToken is total.
func ParseJoinToken(text string) (JoinToken, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return JoinToken{}, fmt.Errorf("%w: it does not begin with %s", ErrToken, tokenPrefix)
	}
	if len(rest) > maxTokenText {
		return JoinToken{}, fmt.Errorf("%w: it has %d bytes, at most %d", ErrToken, len(rest), maxTokenText)
	}
	var t revealedToken
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || json.Unmarshal(b, &t) != nil || !t.complete() {
		return JoinToken{}, fmt.Errorf("%w: it is cut or changed", ErrToken)
	}
	return JoinToken{
		Cluster: t.Cluster, Node: t.Node, ID: t.ID, Secret: t.Secret, Fingerprint: t.Fingerprint, Addresses: t.Addresses,
	}, nil
}

func (t revealedToken) complete() bool {
	return len(t.Secret) == tokenSecretSize && len(t.Fingerprint) == sha256.Size && len(t.Addresses) != 0 && t.Cluster != "" && t.Node != "" && t.ID != ""
}

// CreateJoinToken makes a token for one named node. The cluster keeps only its hash.
func (v *Vault) CreateJoinToken(ctx context.Context, c policy.Caller, id fsm.RequestID, node fsm.NodeID, life time.Duration) (JoinToken, time.Time, uint64, error) {
	s, err := v.current(ctx)
	if err != nil {
		return JoinToken{}, time.Time{}, 0, err
	}
	if err := policy.Administer(s, c); err != nil {
		return JoinToken{}, time.Time{}, 0, err
	}
	if life = orDefault(life, defaultTokenLife); life < 0 || life > maxTokenLife {
		return JoinToken{}, time.Time{}, 0, fmt.Errorf("%w: a token for %s, at most %s", ErrInvalid, life, maxTokenLife)
	}
	t, err := v.newToken(s, node)
	if err != nil {
		return JoinToken{}, time.Time{}, 0, err
	}
	hash := sha256.Sum256(t.Secret)
	expires := v.cfg.Now().Add(life).UTC().Truncate(time.Millisecond)
	r, err := v.write(ctx, c, id, requestHash("nodes.token", string(node), life.String()),
		fsm.CreateJoinToken{ID: t.ID, Node: node, Hash: hash[:], ExpiresAt: expires})
	if err == nil && r.Repeat {
		err = &Refused{Code: fsm.CodeRequestReused, Message: "this request was answered before and the token is shown once; make another token"}
	}
	return t, expires, r.Index, err
}

func (v *Vault) newToken(s *fsm.State, node fsm.NodeID) (JoinToken, error) {
	ca, err := x509.ParseCertificate(s.Cluster().NodeCA)
	if err != nil {
		return JoinToken{}, err
	}
	fingerprint := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	t := JoinToken{
		Cluster: s.Cluster().ID, Node: node, ID: uuid.NewString(), Secret: make([]byte, tokenSecretSize), Fingerprint: fingerprint[:],
		Addresses: tokenAddresses(s.Nodes()),
	}
	return t, v.cfg.Token.Random(t.Secret)
}

// tokenAddresses are where the new node may ask: one that answers is enough, and all 64 of a large cluster with long names would
// make a text over maxTokenText, which the new node refuses.
func tokenAddresses(nodes []fsm.Node) []string {
	var all []string
	for _, n := range nodes[:min(len(nodes), maxTokenAddresses)] {
		all = append(all, n.ClusterAddr)
	}
	return all
}

// joinRequest is what a new node sends; the connection is encrypted to the cluster that the token names.
type joinRequest struct {
	TokenID string   `json:"token_id"`
	Secret  []byte   `json:"secret"`
	Node    fsm.Node `json:"node"`
	Request []byte   `json:"csr"` // PKCS#10, signed with the node's identity key: it has the key
}

// JoinRequest is the new node's side: what it sends.
func JoinRequest(t JoinToken, d Description, token hsm.Token, csr []byte) ([]byte, error) {
	n, err := d.Describe(token)
	if err != nil {
		return nil, err
	}
	return json.Marshal(joinRequest{TokenID: t.ID, Secret: t.Secret, Node: n, Request: csr})
}

// JoinReply takes the answer to a JoinRequest apart.
func JoinReply(raw []byte) (Membership, error) {
	return ask[Membership](func() ([]byte, error) { return raw, nil })
}

// HandleJoin admits a node that presents a token. Any node can: it checks the token, signs the certificate with the cluster's
// authority, seals the cluster's secrets to the new node, and lets nothing out before the state machine has used the token up.
func (v *Vault) HandleJoin(ctx context.Context, payload []byte) ([]byte, error) {
	return serve(payload, func(q joinRequest) (Membership, error) { return v.admit(ctx, q) })
}

func (v *Vault) admit(ctx context.Context, q joinRequest) (Membership, error) {
	s, err := v.current(ctx)
	if err != nil {
		return Membership{}, err
	}
	if err := v.checkToken(s, q); err != nil {
		return Membership{}, err
	}
	n := q.Node
	n.JoinedAt = v.cfg.Now().UTC().Truncate(time.Millisecond)
	if err := v.equip(s, &n, q.Request); err != nil {
		return Membership{}, err
	}
	hash := sha256.Sum256(q.Secret)
	if _, err := v.report(ctx, fsm.AdmitNode{TokenID: q.TokenID, TokenHash: hash[:], Node: n}); err != nil {
		return Membership{}, err
	}
	s = v.state()
	admitted, found := s.Node(n.ID) // of the first try, if this was a repeat
	if !found {
		return Membership{}, fmt.Errorf("node %s was admitted and is not in the state: this is a defect", n.ID)
	}
	m := Membership{
		ClusterID: s.Cluster().ID, Node: n.ID, NodeCA: s.Cluster().NodeCA, ClientCA: s.Cluster().ClientCA,
		Certificate: admitted.Certificate, Secrets: admitted.Secrets,
	}
	for _, peer := range s.Nodes() {
		m.Peers = append(m.Peers, peer.ClusterAddr)
	}
	return m, nil
}

// checkToken refuses early what the state machine would refuse, so that no authority signs for a stranger. One text for every
// cause: a stranger learns nothing of which tokens exist.
func (v *Vault) checkToken(s *fsm.State, q joinRequest) error {
	t, found := s.JoinToken(q.TokenID)
	hash := sha256.Sum256(q.Secret)
	if !found || subtle.ConstantTimeCompare(t.Hash, hash[:]) != 1 || t.Node != q.Node.ID || v.cfg.Now().After(t.ExpiresAt) ||
		(t.UsedBy != nil && string(t.UsedBy) != string(q.Node.IdentityKey)) {
		v.log.Warn("a join was refused", "node", string(q.Node.ID), "token", q.TokenID)
		return fmt.Errorf("%w: it is unknown, used, expired, or for another node; make one with: conclave node token %s", ErrToken, q.Node.ID)
	}
	return nil
}

// equip gives the new node its certificate and its copy of the cluster's secrets.
func (v *Vault) equip(s *fsm.State, n *fsm.Node, csr []byte) error {
	r, err := pki.ParseRequest(csr)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if string(r.RawSubjectPublicKeyInfo) != string(n.IdentityKey) {
		return fmt.Errorf("%w: the certificate request is not for the node's identity key", ErrInvalid)
	}
	secrets, err := v.secrets(s)
	if err != nil {
		return err
	}
	defer secrets.wipe()
	ca, err := pki.LoadAuthority(s.Cluster().NodeCA, secrets.NodeCAKey)
	if err != nil {
		return err
	}
	cert, err := ca.IssueNode(pki.ID{Cluster: s.Cluster().ID, Role: "node", Name: string(n.ID)}, r.PublicKey, hosts(*n), v.cfg.Now())
	if err != nil {
		return err
	}
	n.Certificate = cert.Raw
	n.Secrets, err = secrets.seal(s.Cluster().ID, n.ID, n.ExchangeKey)
	return err
}
