package vault

import (
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/pki"
)

// gossipKeySize selects AES-256 in gossip.
const gossipKeySize = 32

// Description is what a node says of itself when it founds or joins a cluster.
type Description struct {
	ID          fsm.NodeID
	Datacenter  string
	ClusterAddr string
	APIAddr     string
}

// Describe adds what the node's token says.
func (d Description) Describe(t hsm.Token) (fsm.Node, error) {
	identity, err := x509.MarshalPKIXPublicKey(t.Identity().Public())
	if err != nil {
		return fsm.Node{}, fmt.Errorf("the node's identity key: %w", err)
	}
	return fsm.Node{
		ID: d.ID, Datacenter: d.Datacenter, ClusterAddr: d.ClusterAddr, APIAddr: d.APIAddr, IdentityKey: identity,
		ExchangeKey: t.Exchange().PublicKey().Bytes(), Device: Device(t),
	}, nil
}

// hosts are the names under which a node can be called.
func hosts(n fsm.Node) []string {
	var all []string
	for _, addr := range []string{n.APIAddr, n.ClusterAddr} {
		if host, _, err := net.SplitHostPort(addr); err == nil && !slices.Contains(all, host) {
			all = append(all, host)
		}
	}
	return all
}

// Founding is a new cluster on its first node.
type Founding struct {
	Membership Membership
	Entry      []byte // the first entry of the log, stamped; its secrets are sealed
}

// Administrator is the first client.
type Administrator struct {
	Name string
	Key  any // public key
	Life time.Duration
}

// Found makes a cluster: its id, its two authorities, its gossip key, the first node's and the first administrator's
// certificates. The authorities' keys leave this function only sealed to the node's exchange key.
func Found(d Description, t hsm.Token, dev bool, admin Administrator, now time.Time) (Founding, *x509.Certificate, error) {
	id := uuid.NewString()
	nodeCA, err := pki.NewAuthority(id, "node", now)
	if err != nil {
		return Founding{}, nil, err
	}
	clientCA, err := pki.NewAuthority(id, "client", now)
	if err != nil {
		return Founding{}, nil, err
	}
	n, err := foundingNode(d, t, id, nodeCA, clientCA, now)
	if err != nil {
		return Founding{}, nil, err
	}
	serial := uuid.New()
	cert, err := clientCA.IssueClient(pki.ID{Cluster: id, Role: string(fsm.RoleAdministrator), Name: admin.Name}, admin.Key, serial, admin.Life, now)
	if err != nil {
		return Founding{}, nil, err
	}
	entry, err := fsm.EncodeEntry(fsm.Entry{
		Actor: fsm.Actor("spiffe://" + id + "/node/" + string(d.ID)),
		Command: fsm.InitCluster{
			ClusterID: id, Dev: dev, FeatureLevel: fsm.FeatureLevel, NodeCA: nodeCA.Certificate.Raw, ClientCA: clientCA.Certificate.Raw, Node: n,
			Certificates: []fsm.Certificate{record(cert, fsm.RoleAdministrator, admin.Name)},
		},
	}.Stamped(now))
	if err != nil {
		return Founding{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := rehearse(entry); err != nil {
		return Founding{}, nil, err
	}
	m := Membership{
		ClusterID: id, Node: d.ID, NodeCA: nodeCA.Certificate.Raw, ClientCA: clientCA.Certificate.Raw, Certificate: n.Certificate, Secrets: n.Secrets,
	}
	return Founding{Membership: m, Entry: entry}, cert, nil
}

// rehearse applies the first entry to an empty state: were it refused later, in the log, the cluster would never begin.
func rehearse(entry []byte) error {
	r, _, err := fsm.New().Apply(1, entry)
	if err != nil {
		return err
	}
	if err := refused(r); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func foundingNode(d Description, t hsm.Token, id string, nodeCA, clientCA *pki.Authority, now time.Time) (fsm.Node, error) {
	n, err := d.Describe(t)
	if err != nil {
		return n, err
	}
	n.JoinedAt = now.UTC()
	cert, err := nodeCA.IssueNode(pki.ID{Cluster: id, Role: "node", Name: string(d.ID)}, t.Identity().Public(), hosts(n), now)
	if err != nil {
		return n, err
	}
	n.Certificate = cert.Raw
	secrets := &clusterSecrets{GossipKey: make([]byte, gossipKeySize)}
	defer secrets.wipe()
	if err := t.Random(secrets.GossipKey); err != nil {
		return n, err
	}
	if secrets.NodeCAKey, err = nodeCA.MarshalKey(); err != nil {
		return n, err
	}
	if secrets.ClientCAKey, err = clientCA.MarshalKey(); err != nil {
		return n, err
	}
	n.Secrets, err = secrets.seal(id, d.ID, n.ExchangeKey)
	return n, err
}

func record(c *x509.Certificate, role fsm.Role, name string) fsm.Certificate {
	return fsm.Certificate{Serial: pki.Serial(c), Role: role, Name: name, NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
}
