package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// raftIOTimeout bounds one message between nodes, its time on the receiver's disk included. Snapshots get more, by size.
	raftIOTimeout = 5 * time.Second
	// raftConnsPerNode is raft's pool: one for entries, one for heartbeats, one spare.
	raftConnsPerNode = 3
	// raftInFlight of 1 switches raft's pipelining off. In raft v1.7.3 a follower that answers no (a higher term, a gap) while two
	// messages are under way can leave the leader's replication to it stuck for ever: heartbeats go on, entries do not, and raft
	// can never be shut down. Overlapping two messages gains little, because entries are batched.
	raftInFlight = 1
)

// engine is a running raft with the transport below it.
type engine struct {
	raft      *raft.Raft
	transport *raft.NetworkTransport
	stream    *raftStream
}

// startRaft restores the FSM from the latest snapshot, and starts raft. ctx bounds raft's connections.
func (n *Node) startRaft(ctx context.Context) (*engine, error) {
	stream := newRaftStream(ctx, n.port.queues[protoRaft], n.advertise, n.dialRaft)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider:   addressBook{n},
		Logger:                  newBridge(n.log, "raft-net").without("failed to decode incoming command"), // raftConn says to whom
		Stream:                  stream,
		MaxPool:                 raftConnsPerNode,
		MaxRPCsInFlight:         raftInFlight,
		Timeout:                 raftIOTimeout,
		MsgpackUseNewTimeFormat: true,
	})
	e := &engine{transport: transport, stream: stream}
	n.stream.Store(stream)
	if err := n.bootstrap(transport); err != nil {
		e.closeTransport()
		return nil, err
	}
	fsm := &commandFSM{inner: n.cfg.FSM, applied: n.NotifyApplied}
	r, err := raft.NewRaft(n.raftConfig(), fsm, n.disk.logs, n.disk.stable, n.disk.snapshots, asking{transport, n.cfg.Timers.Heartbeat})
	if err != nil {
		e.closeTransport()
		return nil, fmt.Errorf("starting raft: %w", err)
	}
	e.raft = r
	return e, nil
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.ID)
	c.HeartbeatTimeout = n.cfg.Timers.Heartbeat
	c.ElectionTimeout = n.cfg.Timers.Election
	c.LeaderLeaseTimeout = n.cfg.Timers.LeaderLease
	c.CommitTimeout = n.cfg.Timers.Commit
	c.SnapshotInterval = n.cfg.SnapshotInterval
	c.SnapshotThreshold = n.cfg.SnapshotThreshold
	c.TrailingLogs = n.cfg.TrailingLogs
	c.MaxAppendEntries = raftEntries
	c.ShutdownOnRemove = false // a removed node goes on, to say what it is; it can neither vote nor hold a lease
	c.NoLegacyTelemetry = true
	c.Logger = newBridge(n.log, "raft")
	return c
}

// bootstrap makes this node the only voter of a new cluster, unless raft has been here before.
func (n *Node) bootstrap(transport raft.Transport) error {
	if !n.cfg.Bootstrap {
		return nil
	}
	exists, err := raft.HasExistingState(n.disk.logs, n.disk.stable, n.disk.snapshots)
	if err != nil || exists {
		return err
	}
	self := raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(n.cfg.ID), Address: raft.ServerAddress(n.advertise)}
	err = raft.BootstrapCluster(n.raftConfig(), n.disk.logs, n.disk.stable, n.disk.snapshots, transport,
		raft.Configuration{Servers: []raft.Server{self}})
	if err != nil {
		return fmt.Errorf("bootstrapping raft: %w", err)
	}
	return nil
}

// stop ends raft. Connections are closed between asking it to stop and waiting for it, because its goroutines sit in them.
func (e *engine) stop() error {
	stopping := e.raft.Shutdown()
	e.closeTransport()
	return stopping.Error()
}

func (e *engine) closeTransport() {
	e.transport.Close() // first: it must know why its listener ends
	e.stream.shut()
	e.transport.CloseStreams()
}
