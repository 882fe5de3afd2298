package fsm

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
)

const nodePrefix = "node/"

func nodeSubject(id NodeID) string { return nodePrefix + string(id) }

func cutNode(subject string) (NodeID, bool) {
	id, ok := strings.CutPrefix(subject, nodePrefix)
	return NodeID(id), ok
}

const clusterSubject = "cluster"

func (x *execution) initCluster(c InitCluster) error {
	if err := x.checkInit(c); err != nil {
		return err
	}
	x.cluster = Cluster{
		ID: c.ClusterID, Dev: c.Dev, FeatureLevel: c.FeatureLevel, NodeCA: c.NodeCA, ClientCA: c.ClientCA, CreatedAt: x.now,
	}
	x.emit(Event{Action: "cluster.init", Subject: clusterSubject, SubjectID: c.ClusterID, Detail: fmt.Sprintf("dev=%t", c.Dev)})
	x.addNode(c.Node, "")
	for _, cert := range c.Certificates {
		x.addCertificate(cert)
	}
	return nil
}

func (x *execution) checkInit(c InitCluster) error {
	if x.Initialised() {
		return refuse(CodeExists, "the cluster %s exists already", x.cluster.ID)
	}
	if err := ValidClusterID(c.ClusterID); err != nil {
		return err
	}
	if c.FeatureLevel < oldestLevel {
		return invalid("feature level %d, and this release speaks none below %d", c.FeatureLevel, oldestLevel)
	}
	if c.FeatureLevel > FeatureLevel {
		return x.halt("the cluster begins at feature level %d, and this release understands %d: upgrade this node", c.FeatureLevel, FeatureLevel)
	}
	// Certificates are not parsed here: what a parser accepts changes with its release, and replicas may run two of them.
	if err := validSize("the nodes' CA certificate", c.NodeCA, 1, maxCertificate); err != nil {
		return err
	}
	if err := validSize("the clients' CA certificate", c.ClientCA, 1, maxCertificate); err != nil {
		return err
	}
	if err := validNode(c.Node); err != nil {
		return err
	}
	return x.checkFirstCertificates(c.Certificates)
}

func (x *execution) checkFirstCertificates(certificates []Certificate) error {
	seen := make(map[string]bool, len(certificates))
	for _, cert := range certificates {
		if err := x.checkCertificate(cert); err != nil {
			return err
		}
		if seen[cert.Serial] {
			return refuse(CodeExists, "certificate %s is given twice", cert.Serial)
		}
		seen[cert.Serial] = true
	}
	return nil
}

// createJoinToken also forgets expired tokens, so that the table needs no other care.
func (x *execution) createJoinToken(c CreateJoinToken) error {
	if err := validUUID("token id", c.ID); err != nil {
		return err
	}
	if err := ValidNodeID(string(c.Node)); err != nil {
		return err
	}
	if err := validSize("the token's hash", c.Hash, hashSize, hashSize); err != nil {
		return err
	}
	if !c.ExpiresAt.After(x.now) || c.ExpiresAt.After(x.now.Add(MaxJoinTokenLife)) {
		return invalid("a join token lives at most 24h from now, %s, and not until %s", stamp(x.now), stamp(c.ExpiresAt))
	}
	if _, taken := x.tokens.Get(c.ID); taken {
		return refuse(CodeExists, "token %s exists", c.ID)
	}
	expired := x.expiredTokens()
	if x.tokens.Len()-len(expired) >= MaxJoinTokens {
		return refuse(CodeLimit, "%d join tokens are valid: use them or wait until they expire", MaxJoinTokens)
	}
	for _, id := range expired {
		x.deleteToken(id)
	}
	x.setToken(JoinToken{ID: c.ID, Node: c.Node, Hash: c.Hash, ExpiresAt: c.ExpiresAt})
	x.emit(Event{Action: "node.token", Subject: nodeSubject(c.Node), SubjectID: c.ID, Detail: "expires_at=" + stamp(c.ExpiresAt)})
	return nil
}

func (x *execution) expiredTokens() []string {
	var ids []string
	for _, t := range x.tokens.Values() {
		if !t.ExpiresAt.After(x.now) {
			ids = append(ids, t.ID)
		}
	}
	return ids
}

// admitNode makes the node a member. A member that lost its disk is removed first, whatever it still has: it has a vote in raft and
// does not remember how it voted, and what it had acknowledged as written is not there any more.
func (x *execution) admitNode(c AdmitNode) error {
	if err := validNode(c.Node); err != nil {
		return err
	}
	token, err := x.checkToken(c)
	if err != nil {
		return err
	}
	if token.UsedBy != nil {
		x.result.Index = token.UsedAt
		return nil
	}
	if err := x.checkNewcomer(c.Node); err != nil {
		return err
	}
	token.UsedBy, token.UsedAt = c.Node.IdentityKey, x.index
	x.setToken(token)
	x.addNode(c.Node, token.ID)
	return nil
}

// moveNode follows a member to other addresses; its keys and its name stay.
func (x *execution) moveNode(c MoveNode) error {
	n, known := x.Node(c.Node)
	if !known {
		return refuse(CodeNotFound, "there is no node %q", clip(string(c.Node)))
	}
	from := n.ClusterAddr + " " + n.APIAddr
	n.ClusterAddr, n.APIAddr = c.ClusterAddr, c.APIAddr
	if err := validNode(n); err != nil {
		return err
	}
	x.nodes.Set(n.ID, &n)
	x.emit(Event{Action: "node.move", Subject: nodeSubject(n.ID), From: from, To: c.ClusterAddr + " " + c.APIAddr})
	return nil
}

// describeDevice follows a member's HSM to another release. What the device lost cannot be refused, because it is a fact: the node
// answers so for each key, and new keys that need it are refused. But a hardware boundary does not come and go: a node that has
// another device joins anew.
func (x *execution) describeDevice(c DescribeDevice) error {
	n, known := x.Node(c.Node)
	if !known {
		return refuse(CodeNotFound, "there is no node %q", clip(string(c.Node)))
	}
	c.Device = c.Device.sorted()
	if err := validDevice(c.Device); err != nil {
		return err
	}
	if c.Device.HardwareSafe != n.Device.HardwareSafe {
		return refuse(CodeConflict, "node %s was admitted with hardware_safe=%t: a node with another kind of HSM joins anew", n.ID, n.Device.HardwareSafe)
	}
	if c.Device.Equal(n.Device) {
		return nil
	}
	from := n.Device
	n.Device = c.Device
	x.nodes.Set(n.ID, &n)
	x.emit(Event{
		Action: "node.device", Subject: nodeSubject(n.ID), From: from.name(), To: n.Device.name(),
		Detail: fmt.Sprintf("gained=%q lost=%q", without(n.Device.Algorithms, from.Algorithms), without(from.Algorithms, n.Device.Algorithms)),
	})
	return nil
}

// without lists what a has and b has not.
func without(a, b []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) }), " ")
}

// name is the device in one line of the log.
func (d Device) name() string { return strings.TrimSpace(d.HSM + " " + d.Library) }

// checkToken answers every fault of a token alike: a stranger must not learn which part was right.
func (x *execution) checkToken(c AdmitNode) (JoinToken, error) {
	t, ok := x.JoinToken(c.TokenID)
	good := ok && subtle.ConstantTimeCompare(t.Hash, c.TokenHash) == 1 && t.Node == c.Node.ID
	usedByIt := t.UsedBy != nil && bytes.Equal(t.UsedBy, c.Node.IdentityKey)
	unused := t.UsedBy == nil && t.ExpiresAt.After(x.now)
	if !good || !usedByIt && !unused {
		return JoinToken{}, refuse(CodeDenied, "the join token is not valid for node %s: make another (conclave node token)", c.Node.ID)
	}
	return t, nil
}

func (x *execution) checkNewcomer(n Node) error {
	old, known := x.Node(n.ID)
	switch {
	case old.RemovedAt != 0:
		return refuse(CodeConflict, "node %s is being removed: admit it when it is gone (conclave node list)", n.ID)
	case known && !bytes.Equal(old.IdentityKey, n.IdentityKey):
		return refuse(CodeExists, "a node %s with another identity key is a member: choose another name, or remove that one first (conclave node remove %s)", n.ID, n.ID)
	case known:
		return refuse(CodeExists, "node %s is a member: if it lost its disk, remove it first (conclave node remove %s), because its votes still count", n.ID, n.ID)
	case x.nodes.Len() >= MaxNodes:
		return refuse(CodeLimit, "the cluster has %d nodes, which is its limit", MaxNodes)
	}
	return x.canServeAll(n)
}

func (x *execution) canServeAll(n Node) error {
	var err error
	x.keys.Scan(func(_ KeyName, k *Key) bool {
		err = x.canServe(n, *k)
		return err == nil
	})
	return err
}

// canServe: any node is asked for any key, so a node that cannot use one of them does not join. Keys that are gone for good
// ask nothing of it.
func (x *execution) canServe(n Node, k Key) error {
	if !k.hasMaterial() {
		return nil
	}
	if !slices.Contains(n.Device.Algorithms, k.Algorithm) {
		return refuse(CodeUnsupported, "node %s (%s) cannot use %s, which existing keys need%s", n.ID, n.Device.HSM, k.Algorithm, n.Device.lack(k.Algorithm))
	}
	if c, _ := x.Class(k.Class); c.HardwareOnly && !n.Device.HardwareSafe && !x.cluster.Dev {
		return refuse(CodeUnsupported, "node %s (%s) has no hardware boundary, and there are keys of class %s", n.ID, n.Device.HSM, k.Class)
	}
	return nil
}

// addNode makes a member of a node. What only this log says of members, the node does not say of itself.
func (x *execution) addNode(n Node, token string) {
	n.JoinedAt, n.UnsealedBoot, n.UnsealedAt, n.DrainedAt, n.RemovedAt = x.now, "", 0, 0, 0
	n.Device = n.Device.sorted()
	x.nodes.Set(n.ID, &n)
	x.emit(Event{
		Action: "node.admit", Subject: nodeSubject(n.ID), SubjectID: token,
		Detail: fmt.Sprintf("hsm=%q hardware_safe=%t datacenter=%q", n.Device.HSM, n.Device.HardwareSafe, n.Datacenter),
	})
}

func validNode(n Node) error {
	if err := ValidNodeID(string(n.ID)); err != nil {
		return err
	}
	for _, field := range []struct {
		what, text string
		least, max int
	}{
		{"the node's cluster address", n.ClusterAddr, 1, maxAddress}, {"the node's API address", n.APIAddr, 1, maxAddress},
		{"the node's datacenter", n.Datacenter, 0, maxShort},
	} {
		if len(field.text) < field.least {
			return invalid("%s is missing", field.what)
		}
		if err := validText(field.what, field.text, field.max); err != nil {
			return err
		}
	}
	if err := validDevice(n.Device); err != nil {
		return err
	}
	return validNodeBytes(n)
}

func validNodeBytes(n Node) error {
	for _, field := range []struct {
		what       string
		bytes      []byte
		least, max int
	}{
		{"the node's identity key", n.IdentityKey, 1, maxPublicKey},
		{"the node's exchange key", n.ExchangeKey, exchangeKeySize, exchangeKeySize},
		{"the node's certificate", n.Certificate, 0, maxCertificate},
		{"the node's sealed secrets", n.Secrets, 0, maxSecrets},
	} {
		if err := validSize(field.what, field.bytes, field.least, field.max); err != nil {
			return err
		}
	}
	return nil
}
