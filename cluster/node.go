package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/cluster/refusal"
)

const (
	// handoverTime bounds the attempt of a leaving leader to name its successor, which spares the others an election.
	handoverTime = 500 * time.Millisecond
	// drainTime bounds the wait for answers that raft still owes.
	drainTime = time.Second
)

// Node is this process's part in the cluster. Its methods may be used while Run runs; before and after they return ErrStopped
// or the zero value.
type Node struct {
	cfg       Config
	log       *slog.Logger
	identity  *identity
	advertise string
	port      *port
	disk      *disk
	logs      raft.LogStore

	raft    atomic.Pointer[raft.Raft]
	stream  atomic.Pointer[raftStream]
	futures *futures
	members *membership
	control *pool // renewals and reads
	bulk    *pool // calls
	gossip  atomic.Pointer[memberlist.Memberlist]

	gossipRefusals *refusal.Log

	holder   *lease.Holder
	tenure   atomic.Pointer[lease.Table] // non-nil while this node leads and knows what it leads
	renewNow chan struct{}
	floor    atomic.Uint64 // last one seen

	fences fencing

	hearing sync.Mutex // nobody takes another renewal between a word of peers' clocks and what follows from it
	peers   *lease.Peers

	applied    *signal // the FSM moved
	leadership *signal // the leader, the term or the tenure may have changed
	reported   *signal // a node renewed its lease here

	reads    *flight       // ReadIndex callers on this node
	confirms *flight       // ReadIndex requests of other nodes to this leader
	asking   chan struct{} // holds a token while Alive waits for raft

	started  atomic.Bool
	stopped  chan struct{}
	stopOnce sync.Once
}

// New opens the stores and the cluster port. It starts nothing; the Node must be run or closed.
func New(cfg Config) (*Node, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Logger.With("node", string(cfg.ID)),
		identity: &identity{id: cfg.ID, clusterID: cfg.ClusterID, cert: cfg.Certificate, roots: cfg.Roots},
		futures:  newFutures(), members: newMembership(), renewNow: make(chan struct{}, 1),
		applied: newSignal(), leadership: newSignal(), reported: newSignal(), stopped: make(chan struct{}), asking: make(chan struct{}, 1),
	}
	n.gossipRefusals = refusal.New(n.log, "gossip")
	n.control, n.bulk = newPool(n.dialNode), newPool(n.dialNode)
	n.reads, n.confirms = newFlight(n.stopped, n.askReadIndex), newFlight(n.stopped, n.confirm)
	if err := n.identity.check(); err != nil {
		return nil, err
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	n.holder = lease.NewHolder(string(cfg.ID), cfg.Boot, cfg.Clock).With(cfg.Lease, n.disk.incarnation, cfg.BootClock).Incumbent(n.since)
	n.peers = lease.NewPeers(cfg.Lease, cfg.Boot, cfg.Clock)
	return n, nil
}

func (n *Node) open() error {
	d, err := openDisk(&n.cfg, n.log)
	if err != nil {
		return fmt.Errorf("opening storage: %w", err)
	}
	listener, err := n.cfg.Network.Listen(n.cfg.Bind)
	if err != nil {
		return errors.Join(fmt.Errorf("cluster port: %w", err), d.close())
	}
	n.disk, n.logs = d, d.logs
	n.advertise = n.cfg.Advertise
	if n.advertise == "" {
		n.advertise = listener.Addr().String()
	}
	n.port = newPort(listener, n.identity, n.admitRaft, n.log)
	return nil
}

// Addr is the address that other nodes dial.
func (n *Node) Addr() string { return n.advertise }

// dialNode and dialRaft connect to a node and make sure that it is the one.
func (n *Node) dialNode(ctx context.Context, id NodeID, addr string) (net.Conn, error) {
	return n.dial(ctx, protoNode, id, addr)
}

func (n *Node) dialRaft(ctx context.Context, id NodeID, addr string) (net.Conn, error) {
	return n.dial(ctx, protoRaft, id, addr)
}

func (n *Node) dial(ctx context.Context, proto string, id NodeID, addr string) (net.Conn, error) {
	conn, err := dialTLS(ctx, n.cfg.Network, addr, n.identity.client(proto, id, n.keyOf(proto, id)))
	if err != nil {
		return nil, err
	}
	n.port.known.note(hostOf(conn.RemoteAddr())) // it is going to dial from there, too
	return conn, nil
}

// Run takes part in the cluster until ctx ends, which is no error, or until the node must stop: the disk has failed, or the
// port. It owns every goroutine of the node and closes everything before it returns.
func (n *Node) Run(ctx context.Context) (err error) {
	if !n.started.CompareAndSwap(false, true) {
		return ErrRunning
	}
	defer func() { err = errors.Join(err, n.release()) }()
	// Raft's connections outlive ctx by the handover.
	e, err := n.startRaft(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	n.raft.Store(e.raft)
	peers, joins := newPeerServer(n), newJoinServer(n.cfg.JoinHandler, n.port.refusals)

	// Two groups: the outer one serves what raft needs to say goodbye, and ends when the inner one has ended.
	serving, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	outer, serving := errgroup.WithContext(serving)
	outer.Go(func() error { return n.port.serve(serving) })
	outer.Go(func() error { return serveQueue(peers, n.port.queues[protoNode]) })
	outer.Go(func() error { return serveQueue(joins, n.port.queues[protoJoin]) })
	outer.Go(func() error {
		defer hangUp()
		defer n.port.close()
		failed := n.work(ctx, serving)
		return errors.Join(failed, n.shutdown(ctx, e, peers, joins))
	})
	return outer.Wait()
}

// work runs the loops until ctx ends or something fails, serving the port included.
func (n *Node) work(ctx, serving context.Context) error {
	inner, ctx := errgroup.WithContext(ctx)
	for _, loop := range []func(context.Context) error{
		n.watchLeadership, n.renewLoop, n.reconcileLoop, n.gossipLoop, n.reads.loop, n.confirms.loop, n.watchDisk, n.watchClocks,
	} {
		inner.Go(func() error { return loop(ctx) })
	}
	inner.Go(func() error {
		select {
		case <-serving.Done():
			return context.Cause(serving)
		case <-ctx.Done():
			return nil
		}
	})
	return inner.Wait()
}

// watchDisk ends Run at the first failure of the disk: raft only steps down and goes on, with pages that may be lost.
func (n *Node) watchDisk(ctx context.Context) error {
	select {
	case <-n.disk.fault.Failed():
		return fmt.Errorf("the disk has failed, the node must stop: %w", n.disk.fault.Err())
	case <-ctx.Done():
		return nil
	}
}

// shutdown order: hand the leadership over while everything still runs; take no new requests and let raft answer the old ones;
// end raft; then the servers, whose handlers now find nothing to wait for.
func (n *Node) shutdown(ctx context.Context, e *engine, servers ...*grpc.Server) error {
	n.handOver(context.WithoutCancel(ctx))
	n.port.leaving.Store(true)
	n.stopOnce.Do(func() { close(n.stopped) })
	if !n.futures.drain(drainTime) {
		n.log.Warn("raft owes answers at shutdown")
	}
	n.raft.Store(nil)
	err := e.stop()
	n.tenure.Store(nil)
	n.control.close()
	n.bulk.close()
	n.port.close()
	for _, s := range servers {
		s.Stop()
	}
	return err
}

// handOver makes another voter leader, if this one leads and there is one that answers.
func (n *Node) handOver(ctx context.Context) {
	if !n.IsLeader() || len(n.Voters()) < 2 || n.disk.fault.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handoverTime)
	defer cancel()
	if _, err := n.ask(ctx, change{kind: stepDown}.start); err != nil {
		n.log.Debug("leadership was not handed over", "err", err)
	}
}

// StepDown hands the leadership to another voter, before this node is stopped or upgraded: it spares the others an election.
// ErrNotLeader if there is nothing to hand over.
func (n *Node) StepDown(ctx context.Context) error {
	_, err := n.ask(ctx, change{kind: stepDown}.start)
	return err
}

// serveQueue runs a gRPC server until its queue closes.
func serveQueue(s *grpc.Server, q *connQueue) error {
	err := s.Serve(q)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Close releases what New opened, for a Node that is not run. After Run it does nothing.
func (n *Node) Close() error {
	if !n.started.CompareAndSwap(false, true) {
		return nil
	}
	return n.release()
}

func (n *Node) release() error {
	n.stopOnce.Do(func() { close(n.stopped) })
	n.port.close()
	return n.disk.close()
}
