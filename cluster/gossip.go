package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// GossipConfig of the discovery of nodes. What it finds are hints and have no authority.
type GossipConfig struct {
	Bind, Advertise string // host:port; Advertise is Bind if empty
	Key             []byte // 32 bytes, AES-256
	Datacenter      string // told to others
	APIAddr         string // told to others: where clients connect
	// Peers returns host:port of others' gossip; asked again while gossip knows fewer nodes than the cluster has. nil: none.
	Peers func(ctx context.Context) []string
}

// GossipMember is what gossip says of a node.
type GossipMember struct {
	ID         NodeID
	Addr       string // cluster port
	Datacenter string
	APIAddr    string
	State      string // "alive", "suspect", "dead" or "left"
}

const (
	gossipKeyBytes  = 32
	gossipRetry     = 5 * time.Second
	gossipTimeout   = 2 * time.Second
	gossipLeaveWait = 200 * time.Millisecond
)

func (g *GossipConfig) validate() error {
	if len(g.Key) != gossipKeyBytes {
		return fmt.Errorf("%w: gossip key has %d bytes, want %d", ErrConfig, len(g.Key), gossipKeyBytes)
	}
	for _, addr := range []string{g.Bind, g.advertise()} {
		if _, _, err := splitHostPort(addr); err != nil {
			return fmt.Errorf("%w: gossip address: %w", ErrConfig, err)
		}
	}
	return nil
}

func (g *GossipConfig) advertise() string {
	if g.Advertise != "" {
		return g.Advertise
	}
	return g.Bind
}

func splitHostPort(addr string) (string, int, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return host, int(number), err
}

// gossipMeta travels with a node's name, in at most 512 bytes.
type gossipMeta struct {
	Addr       string `json:"addr"`
	Datacenter string `json:"dc,omitempty"`
	APIAddr    string `json:"api,omitempty"`
}

// gossipDelegate tells others about this node, and nothing else.
type gossipDelegate struct{ meta []byte }

func (d gossipDelegate) NodeMeta(limit int) []byte {
	if len(d.meta) > limit {
		return nil // half a description is worse than none
	}
	return d.meta
}
func (gossipDelegate) NotifyMsg([]byte)                {}
func (gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }
func (gossipDelegate) LocalState(bool) []byte          { return nil }
func (gossipDelegate) MergeRemoteState([]byte, bool)   {}

func (n *Node) gossipConfig() (*memberlist.Config, error) {
	g := n.cfg.Gossip
	meta, err := json.Marshal(gossipMeta{Addr: n.advertise, Datacenter: g.Datacenter, APIAddr: g.APIAddr})
	if err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	c.Name = string(n.cfg.ID)
	c.Label = n.cfg.ClusterID // two clusters that share a network never mix
	c.SecretKey = g.Key
	c.Delegate = gossipDelegate{meta}
	c.TCPTimeout = gossipTimeout
	c.Logger = newBridge(n.log, "gossip").limited().StandardLogger(nil)
	c.EnableCompression = false // the gate refuses it
	c.BindAddr, c.BindPort, err = splitHostPort(g.Bind)
	if err != nil {
		return nil, err
	}
	host, port, err := splitHostPort(g.advertise())
	if err != nil {
		return nil, err
	}
	c.AdvertisePort = port
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		c.AdvertiseAddr = host
	}
	return c, nil
}

// gossipLoop gossips until ctx ends. A failure is logged and tried again: a node works without it.
func (n *Node) gossipLoop(ctx context.Context) error {
	if n.cfg.Gossip == nil {
		return nil
	}
	for {
		list := n.gossip.Load()
		if list == nil {
			list = n.startGossip()
		}
		if list != nil && n.cfg.Gossip.Peers != nil && list.NumMembers() < max(2, len(n.cfg.Members())) {
			n.joinGossip(ctx, list)
		}
		if !pause(ctx, gossipRetry) {
			n.stopGossip()
			return nil
		}
	}
}

func (n *Node) joinGossip(ctx context.Context, list *memberlist.Memberlist) {
	ctx, cancel := context.WithTimeout(ctx, gossipRetry)
	defer cancel()
	peers := n.cfg.Gossip.Peers(ctx)
	if len(peers) == 0 {
		return
	}
	if _, err := list.Join(peers); err != nil {
		n.log.Debug("not every gossip peer answered", "err", err)
	}
}

func (n *Node) startGossip() *memberlist.Memberlist {
	c, err := n.gossipConfig()
	if err != nil {
		n.log.Warn("gossip is not configured well", "err", err)
		return nil
	}
	gate, err := openGossip(c, n.gossipRefusals, c.Logger)
	if err != nil {
		n.log.Warn("gossip did not start", "err", err)
		return nil
	}
	list, err := memberlist.Create(c)
	if err != nil {
		n.log.Warn("gossip did not start", "err", errors.Join(err, gate.Shutdown()))
		return nil
	}
	n.gossip.Store(list)
	return list
}

func (n *Node) stopGossip() {
	list := n.gossip.Swap(nil)
	if list == nil {
		return
	}
	if err := list.Leave(gossipLeaveWait); err != nil {
		n.log.Debug("leaving gossip", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		n.log.Debug("stopping gossip", "err", err)
	}
	n.gossipRefusals.Close()
}

// Gossip lists the nodes that gossip has found, this one included. They are hints.
func (n *Node) Gossip() []GossipMember {
	list := n.gossip.Load()
	if list == nil {
		return nil
	}
	var all []GossipMember
	for _, m := range list.Members() {
		var meta gossipMeta
		if err := json.Unmarshal(m.Meta, &meta); err != nil {
			continue // somebody with the key but without our format
		}
		all = append(all, GossipMember{
			ID: NodeID(m.Name), Addr: meta.Addr, Datacenter: meta.Datacenter, APIAddr: meta.APIAddr, State: gossipState(m.State),
		})
	}
	return all
}

func gossipState(s memberlist.NodeStateType) string {
	switch s {
	case memberlist.StateAlive:
		return "alive"
	case memberlist.StateSuspect:
		return "suspect"
	case memberlist.StateDead:
		return "dead"
	default:
		return "left"
	}
}
