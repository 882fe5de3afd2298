package custody_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

const clusterID = "test-cluster"

// cluster is a small cluster behind the real API: the real state machine decides, each node has a real exchange key, and dealing
// and unsealing use the real cryptography. Only raft and the HSM are not there.
type cluster struct {
	vaultpb.UnimplementedCeremoniesServer
	vaultpb.UnimplementedClusterServer

	t       *testing.T
	conn    *grpc.ClientConn
	mu      sync.Mutex
	machine *fsm.Machine
	index   uint64
	nodes   map[fsm.NodeID]*node
	order   []fsm.NodeID
	random  []byte            // the dealing node's part
	entropy map[string][]byte // contributions that the dealing node holds
	secret  []byte            // that the genesis dealt

	// Faults.
	outage int                     // calls that are answered "unavailable" first
	lie    func(*vaultpb.Ceremony) // applied to every ceremony that is shown
	deal   func(*fsm.Deal)         // applied before the deal is published
	master func(*vaultpb.Master)   // applied to the master that is shown
}

type node struct {
	key    *ecdh.PrivateKey
	shares map[uint16]ceremony.Share
	opened []byte // the secret that it recovered
	down   bool
}

func newCluster(t *testing.T, names ...fsm.NodeID) *cluster {
	t.Helper()
	c := &cluster{t: t, machine: fsm.New(), nodes: map[fsm.NodeID]*node{}, entropy: map[string][]byte{}}
	c.apply(fsm.InitCluster{ClusterID: clusterID, FeatureLevel: 1, NodeCA: []byte("ca"), ClientCA: []byte("ca"), Node: c.newNode(names[0])})
	for _, n := range names[1:] {
		c.join(n)
	}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	vaultpb.RegisterCeremoniesServer(server, c)
	vaultpb.RegisterClusterServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///cluster", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	c.conn = conn
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return c
}

func (c *cluster) api() vaultpb.CeremoniesClient { return vaultpb.NewCeremoniesClient(c.conn) }

func (c *cluster) newNode(id fsm.NodeID) fsm.Node {
	c.t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[id] = &node{key: key, shares: map[uint16]ceremony.Share{}}
	c.order = append(c.order, id)
	return fsm.Node{
		ID: id, ClusterAddr: string(id) + ":1", APIAddr: string(id) + ":2", IdentityKey: []byte("identity " + id), ExchangeKey: key.PublicKey().Bytes(),
	}
}

func (c *cluster) join(id fsm.NodeID) {
	c.t.Helper()
	token, hash := uuid.NewString(), sha256.Sum256([]byte(id))
	c.apply(fsm.CreateJoinToken{ID: token, Node: id, Hash: hash[:], ExpiresAt: time.Now().Add(time.Hour)})
	c.apply(fsm.AdmitNode{TokenID: token, TokenHash: hash[:], Node: c.newNode(id)})
}

// apply proposes a command of the test itself or of a node, which must succeed.
func (c *cluster) apply(command fsm.Command) {
	c.t.Helper()
	if _, err := c.propose(command, uuid.Must(uuid.NewV7()).String(), []byte("test")); err != nil {
		c.t.Errorf("%T: %v", command, err)
	}
}

// propose applies a command as a leader would; a refusal is the status that the API would give.
func (c *cluster) propose(command fsm.Command, requestID string, canonical []byte) (fsm.Result, error) {
	data, err := fsm.EncodeEntry(fsm.Entry{
		Command: command, Actor: "spiffe://test-cluster/administrator/a", RequestID: fsm.RequestID(requestID), RequestHash: sha256.Sum256(canonical),
	}.Stamped(time.Now()))
	if err != nil {
		return fsm.Result{}, err
	}
	c.index++
	r, _, err := c.machine.Apply(c.index, data)
	c.machine.Publish()
	switch {
	case err != nil:
		return r, err
	case r.Code == fsm.CodeDenied:
		return r, status.Error(codes.PermissionDenied, r.Message)
	case r.Code != fsm.CodeOK:
		return r, status.Error(codes.FailedPrecondition, r.Message)
	}
	return r, nil
}

// call takes the lock for one API call, and answers "unavailable" as often as the test wants.
func (c *cluster) call() (func(), error) {
	c.mu.Lock()
	if c.outage > 0 {
		c.outage--
		c.mu.Unlock()
		return func() {}, status.Error(codes.Unavailable, "no leader")
	}
	return c.mu.Unlock, nil
}

// answer proposes a client's command under the client's request id, and replies with its ceremony.
func (c *cluster) answer(command fsm.Command, in request) (*vaultpb.CeremonyReply, error) {
	canonical, err := proto.MarshalOptions{Deterministic: true}.Marshal(in)
	if err != nil {
		return nil, err
	}
	r, err := c.propose(command, in.GetRequestId(), canonical)
	if err != nil {
		return nil, err
	}
	return c.reply(r.Ceremony)
}

type request interface {
	proto.Message
	GetRequestId() string
}

func (c *cluster) reply(id fsm.CeremonyID) (*vaultpb.CeremonyReply, error) {
	found, ok := c.machine.State().Ceremony(id)
	if !ok {
		return nil, status.Error(codes.NotFound, "no such ceremony")
	}
	return &vaultpb.CeremonyReply{Ceremony: c.message(found), Index: c.index}, nil
}

func (c *cluster) GetCeremony(_ context.Context, in *vaultpb.GetCeremonyRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	if in.GetId() != "" {
		return c.reply(fsm.CeremonyID(in.GetId()))
	}
	latest, ok := c.machine.State().LatestCeremony(fsm.Purpose(in.GetPurpose()))
	if !ok {
		return nil, status.Error(codes.NotFound, "no such ceremony")
	}
	return c.reply(latest.ID)
}

func (c *cluster) StartGenesis(_ context.Context, in *vaultpb.StartGenesisRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	roster := fsm.Roster{Version: 1, ClusterID: clusterID, Threshold: in.GetThreshold()}
	for _, m := range in.GetCustodians() {
		roster.Custodians = append(roster.Custodians, fsm.Custodian{
			Name: fsm.CustodianName(m.GetName()), Recipient: m.GetRecipient(), SigningKey: m.GetSigningKey(),
		})
	}
	for _, id := range c.order {
		roster.Nodes = append(roster.Nodes, fsm.RosterNode{ID: id, ExchangeKey: c.nodes[id].key.PublicKey().Bytes()})
	}
	id, nonce := fsm.CeremonyID(uuid.NewString()), randomBytes(32)
	c.random = randomBytes(32)
	commitment := ceremony.DealerCommitment(id, nonce, c.order[0], c.random)
	return c.answer(fsm.StartGenesis{
		ID: id, Nonce: nonce, Roster: roster, Dealer: c.order[0], DealerBoot: "boot", DealerCommitment: commitment[:],
	}, in)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func (c *cluster) CommitEntropy(_ context.Context, in *vaultpb.CommitEntropyRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.CommitEntropy{
		Ceremony: fsm.CeremonyID(in.GetCeremony()), Custodian: fsm.CustodianName(in.GetCustodian()), Commitment: in.GetCommitment(),
		Signature: in.GetSignature(), RosterSignature: in.GetRosterSignature(),
	}, in)
}

func (c *cluster) RevealEntropy(_ context.Context, in *vaultpb.RevealEntropyRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	open, ok := c.machine.State().Ceremony(fsm.CeremonyID(in.GetCeremony()))
	if !ok {
		return nil, status.Error(codes.NotFound, "no such ceremony")
	}
	who := fsm.CustodianName(in.GetCustodian())
	entropy, err := ceremony.OpenAtNode(c.nodes[open.Dealer].key, ceremony.Info{
		ClusterID: clusterID, Ceremony: open.ID, Node: open.Dealer, Custodian: who, Purpose: ceremony.PurposeEntropy,
	}, in.GetSealed())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	i := slices.IndexFunc(open.Commitments, func(e fsm.EntropyCommitment) bool { return e.Custodian == who })
	if err := ceremony.CheckEntropy(open.Commitments[i].Commitment, open.ID, open.Nonce, who, entropy); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c.entropy[string(who)] = entropy
	c.apply(fsm.RecordReveal{Ceremony: open.ID, Custodian: who, Matches: true, Boot: "boot"})
	if now, _ := c.machine.State().Ceremony(open.ID); now.Phase == fsm.PhaseDeal {
		if err := c.publishDeal(open.ID); err != nil {
			return nil, err
		}
	}
	return c.reply(open.ID)
}

func (c *cluster) publishDeal(id fsm.CeremonyID) error {
	open, _ := c.machine.State().Ceremony(id)
	var entropies [][]byte
	for _, m := range open.Roster.Custodians {
		entropies = append(entropies, c.entropy[string(m.Name)])
	}
	secret, err := ceremony.HashToSecret(c.random, entropies, ceremony.EntropyTranscript(open))
	if err != nil {
		return err
	}
	c.secret = secret
	shares, commitments, err := ceremony.Deal(secret, int(open.Roster.Threshold), len(open.Roster.Custodians))
	if err != nil {
		return err
	}
	deal := fsm.Deal{
		Generation: 1, Commitments: commitments, Check: [][]byte{{1}, {2}, {3}}, Transcript: ceremony.Transcript(open, commitments),
	}
	for i, m := range open.Roster.Custodians {
		sealed, err := ceremony.SealShareToCustodian(m.Recipient, shares[i], ceremony.Info{ClusterID: clusterID, Ceremony: id, Custodian: m.Name})
		if err != nil {
			return err
		}
		deal.Shares = append(deal.Shares, fsm.SealedShare{Custodian: m.Name, Ciphertext: sealed})
	}
	if c.deal != nil {
		c.deal(&deal)
	}
	c.apply(fsm.PublishDeal{Ceremony: id, Deal: deal, Boot: "boot"})
	return nil
}

func (c *cluster) AcknowledgeShare(_ context.Context, in *vaultpb.AcknowledgeShareRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.AcknowledgeShare{
		Ceremony: fsm.CeremonyID(in.GetCeremony()), Custodian: fsm.CustodianName(in.GetCustodian()), Signature: in.GetSignature(),
	}, in)
}

func (c *cluster) GetRosters(context.Context, *vaultpb.GetRostersRequest) (*vaultpb.GetRostersReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	reply := &vaultpb.GetRostersReply{ClusterId: clusterID, Index: c.index}
	for _, r := range c.machine.State().Rosters() {
		reply.Rosters = append(reply.Rosters, rosterMessage(r))
	}
	if m, ok := c.machine.State().Master(); ok {
		reply.Master = &vaultpb.Master{Generation: m.Generation, Threshold: m.Threshold, Commitments: slices.Clone(m.Commitments)}
		if c.master != nil {
			c.master(reply.Master)
		}
	}
	return reply, nil
}

func (c *cluster) StartUnseal(_ context.Context, in *vaultpb.StartUnsealRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.StartUnseal{
		ID: fsm.CeremonyID(uuid.NewString()), Nonce: in.GetNonce(), Custodian: fsm.CustodianName(in.GetCustodian()), Signature: in.GetSignature(),
	}, in)
}

func (c *cluster) SubmitShare(_ context.Context, in *vaultpb.SubmitShareRequest) (*vaultpb.SubmitShareReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	roster, _ := c.machine.State().Roster()
	id, who := fsm.CeremonyID(in.GetCeremony()), fsm.CustodianName(in.GetCustodian())
	place, err := ceremony.Place(roster, who)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	var bundle []ceremony.NodeShare
	for _, s := range in.GetShares() {
		bundle = append(bundle, ceremony.NodeShare{Node: fsm.NodeID(s.GetNode()), Sealed: s.GetSealed()})
	}
	if err := ceremony.VerifyBundle(roster.Custodians[place-1].SigningKey, id, who, bundle, in.GetSignature()); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	reply := &vaultpb.SubmitShareReply{}
	for _, s := range bundle {
		reply.Verdicts = append(reply.Verdicts, c.accept(id, who, place, s))
	}
	found, _ := c.machine.State().Ceremony(id)
	reply.Ceremony, reply.Index = c.message(found), c.index
	return reply, nil
}

// accept is what a node does with its part of a bundle.
func (c *cluster) accept(id fsm.CeremonyID, who fsm.CustodianName, place uint16, s ceremony.NodeShare) *vaultpb.NodeVerdict {
	n := c.nodes[s.Node]
	if n.down {
		return &vaultpb.NodeVerdict{Node: string(s.Node), Reason: "connection refused"}
	}
	master, _ := c.machine.State().Master()
	err := func() error {
		b, err := ceremony.OpenAtNode(n.key, ceremony.Info{
			ClusterID: clusterID, Ceremony: id, Node: s.Node, Custodian: who, Purpose: ceremony.PurposeShare,
		}, s.Sealed)
		if err != nil {
			return err
		}
		share, err := ceremony.DecodeShare(b)
		if err != nil {
			return err
		}
		if share.Number != place {
			return fmt.Errorf("share %d is not that of %s", share.Number, who)
		}
		if err := share.Verify(master.Commitments, int(master.Threshold)); err != nil {
			return err
		}
		n.shares[place] = share
		return nil
	}()
	v := &vaultpb.NodeVerdict{Node: string(s.Node), Accepted: err == nil, Need: master.Threshold, Have: uint32(len(n.shares))}
	if err != nil {
		v.Reason = err.Error()
	}
	c.apply(fsm.RecordShareVerdict{Ceremony: id, Custodian: who, Node: s.Node, Accepted: v.GetAccepted(), Reason: v.GetReason()})
	if len(n.shares) >= int(master.Threshold) {
		c.unseal(n, s.Node, id, master)
	}
	v.Unsealed = n.opened != nil
	return v
}

func (c *cluster) unseal(n *node, name fsm.NodeID, id fsm.CeremonyID, master fsm.Master) {
	var shares []ceremony.Share
	for _, s := range n.shares {
		shares = append(shares, s)
	}
	secret, err := ceremony.Combine(shares, master.Commitments, int(master.Threshold))
	if err != nil {
		c.t.Errorf("node %s: %v", name, err)
		return
	}
	n.opened = secret
	c.apply(fsm.RecordNodeUnsealed{Node: name, Boot: "boot", Generation: master.Generation, Ceremony: id, Seen: c.index})
}

func (c *cluster) AbortCeremony(_ context.Context, in *vaultpb.AbortCeremonyRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.AbortCeremony{Ceremony: fsm.CeremonyID(in.GetCeremony()), Reason: in.GetReason()}, in)
}

func (c *cluster) StartRoster(_ context.Context, in *vaultpb.StartRosterRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.StartRoster{
		ID: fsm.CeremonyID(uuid.NewString()), Nonce: randomBytes(32), Roster: rosterOf(in.GetRoster()),
		Custodian: fsm.CustodianName(in.GetCustodian()), Signature: in.GetSignature(),
	}, in)
}

func (c *cluster) SignRoster(_ context.Context, in *vaultpb.SignRosterRequest) (*vaultpb.CeremonyReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	return c.answer(fsm.SignRoster{
		Ceremony: fsm.CeremonyID(in.GetCeremony()), Custodian: fsm.CustodianName(in.GetCustodian()), Signature: in.GetSignature(),
	}, in)
}

func (c *cluster) ListNodes(context.Context, *vaultpb.ListNodesRequest) (*vaultpb.ListNodesReply, error) {
	unlock, err := c.call()
	defer unlock()
	if err != nil {
		return nil, err
	}
	reply := &vaultpb.ListNodesReply{}
	for _, n := range c.machine.State().Nodes() {
		reply.Items = append(reply.Items, &vaultpb.Node{Id: string(n.ID), ExchangeKey: n.ExchangeKey})
	}
	return reply, nil
}

func rosterMessage(r fsm.Roster) *vaultpb.Roster {
	out := &vaultpb.Roster{Version: r.Version, ClusterId: r.ClusterID, Threshold: r.Threshold, Previous: r.Previous[:]}
	for _, m := range r.Custodians {
		out.Custodians = append(out.Custodians, &vaultpb.Custodian{Name: string(m.Name), Recipient: m.Recipient, SigningKey: m.SigningKey})
	}
	for _, n := range r.Nodes {
		out.Nodes = append(out.Nodes, &vaultpb.RosterNode{Id: string(n.ID), ExchangeKey: n.ExchangeKey})
	}
	for _, s := range r.Signatures {
		out.Signatures = append(out.Signatures, &vaultpb.RosterSignature{Custodian: string(s.Custodian), Signature: s.Signature})
	}
	return out
}

func rosterOf(r *vaultpb.Roster) fsm.Roster {
	out := fsm.Roster{
		Version: r.GetVersion(), ClusterID: r.GetClusterId(), Threshold: r.GetThreshold(), Previous: [32]byte(bytes.Clone(r.GetPrevious())),
	}
	for _, m := range r.GetCustodians() {
		out.Custodians = append(out.Custodians, fsm.Custodian{
			Name: fsm.CustodianName(m.GetName()), Recipient: m.GetRecipient(), SigningKey: m.GetSigningKey(),
		})
	}
	for _, n := range r.GetNodes() {
		out.Nodes = append(out.Nodes, fsm.RosterNode{ID: fsm.NodeID(n.GetId()), ExchangeKey: n.GetExchangeKey()})
	}
	return out
}

// message is the ceremony as the API shows it.
func (c *cluster) message(f fsm.Ceremony) *vaultpb.Ceremony {
	m := &vaultpb.Ceremony{
		Id: string(f.ID), Purpose: string(f.Purpose), Phase: string(f.Phase), StartedBy: string(f.StartedBy), Reason: f.Reason, Nonce: f.Nonce,
		StartedAt: timestamppb.New(f.StartedAt), ExpiresAt: timestamppb.New(f.ExpiresAt),
		Roster: rosterMessage(f.Roster), Dealer: string(f.Dealer), DealerCommitment: f.DealerCommitment,
	}
	for _, e := range f.Commitments {
		m.Commitments = append(m.Commitments, &vaultpb.EntropyCommitment{
			Custodian: string(e.Custodian), Commitment: e.Commitment, Revealed: e.Revealed, Acknowledged: e.Acknowledged,
		})
	}
	for _, s := range f.Steps {
		m.Steps = append(m.Steps, &vaultpb.CeremonyStep{At: timestamppb.New(s.At), Index: s.Index, Who: s.Who, Action: s.Action, Detail: s.Detail})
	}
	for _, v := range f.Verdicts {
		m.Verdicts = append(m.Verdicts, &vaultpb.ShareVerdict{Custodian: string(v.Custodian), Node: string(v.Node), Accepted: v.Accepted, Reason: v.Reason})
	}
	for _, n := range f.Unsealed {
		m.Unsealed = append(m.Unsealed, string(n))
	}
	if d := f.Deal; d != nil {
		m.Deal = &vaultpb.Deal{Generation: d.Generation, Commitments: d.Commitments, Check: d.Check, Transcript: d.Transcript[:]}
		for _, s := range d.Shares {
			m.Deal.Shares = append(m.Deal.Shares, &vaultpb.SealedShare{Custodian: string(s.Custodian), Ciphertext: s.Ciphertext})
		}
	}
	if c.lie != nil {
		c.lie(m)
	}
	return m
}

func mustKey(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
