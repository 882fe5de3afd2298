package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/pki"
)

// clusterSecrets are the cluster's own keys. They rest only sealed, once for each node's exchange key; any node can admit nodes
// and issue certificates with them while the cluster is sealed.
type clusterSecrets struct {
	hsm.Redacted
	NodeCAKey   []byte // PKCS#8 DER
	ClientCAKey []byte // PKCS#8 DER
	GossipKey   []byte // 32 bytes
}

// sealedSecrets is the form inside the seal, and the only one that shows them: it exists within seal and openSecrets alone.
type sealedSecrets struct {
	NodeCAKey   []byte `json:"node_ca_key"`
	ClientCAKey []byte `json:"client_ca_key"`
	GossipKey   []byte `json:"gossip_key"`
}

func (s *clusterSecrets) wipe() {
	clear(s.NodeCAKey)
	clear(s.ClientCAKey)
	clear(s.GossipKey)
}

func secretsInfo(cluster string, node fsm.NodeID) ceremony.Info {
	return ceremony.Info{ClusterID: cluster, Node: node, Purpose: ceremony.PurposeClusterSecrets}
}

func (s *clusterSecrets) seal(cluster string, node fsm.NodeID, exchangeKey []byte) ([]byte, error) {
	b, err := json.Marshal(sealedSecrets{NodeCAKey: s.NodeCAKey, ClientCAKey: s.ClientCAKey, GossipKey: s.GossipKey})
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return ceremony.SealToNode(exchangeKey, secretsInfo(cluster, node), b)
}

func openSecrets(t hsm.Token, cluster string, node fsm.NodeID, sealed []byte) (*clusterSecrets, error) {
	b, err := ceremony.OpenAtNode(t.Exchange(), secretsInfo(cluster, node), sealed)
	if err != nil {
		return nil, fmt.Errorf("opening the cluster's secrets with this node's HSM: %w", err)
	}
	defer clear(b)
	var s sealedSecrets
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, errors.New("opening the cluster's secrets: malformed") // the cause may quote them
	}
	return &clusterSecrets{NodeCAKey: s.NodeCAKey, ClientCAKey: s.ClientCAKey, GossipKey: s.GossipKey}, nil
}

// Membership is what a node must know of its cluster before it has any state: enough to speak TLS to it. It holds no clear
// secret, and rests in a file beside the state.
type Membership struct {
	ClusterID   string     `json:"cluster_id"`
	Node        fsm.NodeID `json:"node"`
	NodeCA      []byte     `json:"node_ca"`
	ClientCA    []byte     `json:"client_ca"`
	Certificate []byte     `json:"certificate"`
	Secrets     []byte     `json:"secrets"` // sealed to this node's exchange key
	Peers       []string   `json:"peers,omitempty"`
}

// GossipKey opens the gossip key with the node's HSM. It is needed at every start, sealed or not.
func (m Membership) GossipKey(t hsm.Token) ([]byte, error) {
	s, err := openSecrets(t, m.ClusterID, m.Node, m.Secrets)
	if err != nil {
		return nil, err
	}
	key := append([]byte(nil), s.GossipKey...)
	s.wipe()
	return key, nil
}

// secrets opens this node's copy.
func (v *Vault) secrets(s *fsm.State) (*clusterSecrets, error) {
	n, found := s.Node(v.cfg.Node)
	if !found {
		return nil, fmt.Errorf("%w: node %s is not in the state yet", ErrUnavailable, v.cfg.Node)
	}
	return openSecrets(v.cfg.Token, s.Cluster().ID, v.cfg.Node, n.Secrets)
}

// clientAuthority lends the authority that signs clients, for one signature.
func (v *Vault) clientAuthority(s *fsm.State, sign func(*pki.Authority, time.Time) error) error {
	secrets, err := v.secrets(s)
	if err != nil {
		return err
	}
	defer secrets.wipe()
	ca, err := pki.LoadAuthority(s.Cluster().ClientCA, secrets.ClientCAKey)
	if err != nil {
		return err
	}
	return sign(ca, v.cfg.Now())
}
