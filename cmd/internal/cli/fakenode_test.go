package cli_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

var nodeNames = []string{"n1", "n2", "n3"}

// node serves the API over the shared catalog, with real cryptography.
type node struct {
	vaultpb.UnimplementedKeysServer
	vaultpb.UnimplementedClassesServer
	vaultpb.UnimplementedCryptoServer
	vaultpb.UnimplementedClusterServer
	vaultpb.UnimplementedLogServer
	vaultpb.UnimplementedCeremoniesServer
	*catalog
	name string
	ca   *clienttest.CA
	pair tls.Certificate // of the node, which signs checkpoints
}

func (n *node) register(r grpc.ServiceRegistrar) {
	vaultpb.RegisterKeysServer(r, n)
	vaultpb.RegisterClassesServer(r, n)
	vaultpb.RegisterCryptoServer(r, n)
	vaultpb.RegisterClusterServer(r, n)
	vaultpb.RegisterLogServer(r, n)
	vaultpb.RegisterCeremoniesServer(r, n)
}

// GetCeremony knows a genesis that ended well and an unseal that is open.
func (n *node) GetCeremony(_ context.Context, r *vaultpb.GetCeremonyRequest) (*vaultpb.CeremonyReply, error) {
	genesis := &vaultpb.Ceremony{Id: "cer-1", Purpose: "genesis", Phase: "done", StartedAt: timestamppb.New(epoch), EndedAt: timestamppb.New(epoch)}
	unseal := &vaultpb.Ceremony{Id: "cer-2", Purpose: "unseal", Phase: "open", StartedAt: timestamppb.New(epoch), Nonce: []byte{1}}
	for _, c := range []*vaultpb.Ceremony{unseal, genesis} {
		if r.GetId() == c.GetId() || r.GetId() == "" && (r.GetPurpose() == "" || r.GetPurpose() == c.GetPurpose()) {
			return &vaultpb.CeremonyReply{Ceremony: c, Index: 1}, nil
		}
	}
	return nil, kind.New(kind.NotFound, "there is no such ceremony", nil)
}

func (n *node) CreateKey(ctx context.Context, r *vaultpb.CreateKeyRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) { return n.create(ctx, r) })
}

func (n *node) RotateKey(ctx context.Context, r *vaultpb.RotateKeyRequest) (*vaultpb.KeyReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) { return n.rotate(ctx, r) })
}

func (n *node) ChangeKey(ctx context.Context, r *vaultpb.ChangeKeyRequest) (*vaultpb.KeyReply, error) {
	reply, err := write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.KeyReply, error) { return n.change(ctx, r) })
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && n.pending {
		return nil, kind.New(kind.BarrierPending, fmt.Sprintf("committed at %d, pending on n3", reply.GetIndex()), map[string]string{kind.MetaPending: "n3"})
	}
	return reply, err
}

func (n *node) GetKey(_ context.Context, r *vaultpb.GetKeyRequest) (*vaultpb.KeyReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.key(r.GetName())
	if err != nil {
		return nil, err
	}
	return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: n.index}, nil
}

func (n *node) ListKeys(_ context.Context, r *vaultpb.ListKeysRequest) (*vaultpb.ListKeysReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	names := slices.DeleteFunc(n.names(r.GetPrefix()), func(name string) bool {
		k := n.keys[name]
		return !oneOf(r.GetStates(), k.GetState()) || !oneOf(r.GetClasses(), k.GetClass()) || !oneOf(r.GetAlgorithms(), k.GetAlgorithm())
	})
	from, to, next, err := page(len(names), r.GetPageSize(), r.GetPageToken())
	reply := &vaultpb.ListKeysReply{NextPageToken: next, Index: n.index}
	for _, name := range names[from:to] {
		reply.Items = append(reply.Items, proto.CloneOf(n.keys[name]))
	}
	return reply, err
}

func oneOf(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }

func (n *node) KeyHistory(ctx context.Context, r *vaultpb.KeyHistoryRequest) (*vaultpb.EventList, error) {
	if _, err := n.GetKey(ctx, &vaultpb.GetKeyRequest{Name: r.GetName()}); err != nil {
		return nil, err
	}
	return n.ListEvents(ctx, &vaultpb.ListEventsRequest{Subject: "key/" + r.GetName(), PageSize: r.GetPageSize(), PageToken: r.GetPageToken()})
}

func (n *node) GetPublicKey(_ context.Context, r *vaultpb.GetPublicKeyRequest) (*vaultpb.PublicKeyReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.key(r.GetName())
	if err != nil {
		return nil, err
	}
	version := max(r.GetVersion(), 1)
	text, err := publicPEM(k, version)
	return &vaultpb.PublicKeyReply{Key: k.GetName(), Version: version, Algorithm: k.GetAlgorithm(), Pem: text, State: k.GetState(), Index: n.index}, err
}

func (n *node) Sign(_ context.Context, r *vaultpb.SignRequest) (*vaultpb.SignReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	if r.GetPrehashed() && len(r.GetData()) != sha256.Size {
		return nil, kind.New(kind.InvalidArgument, "a digest has 32 bytes", nil)
	}
	v := k.GetPrimaryVersion()
	return &vaultpb.SignReply{
		Key: k.GetName(), Version: v, Algorithm: k.GetAlgorithm(), Scheme: "ed25519", Node: n.name, Index: n.index,
		Signature: ed25519.Sign(ed25519.NewKeyFromSeed(seed(k, v)), r.GetData()),
	}, nil
}

func (n *node) Verify(_ context.Context, r *vaultpb.VerifyRequest) (*vaultpb.VerifyReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, err := n.key(r.GetName())
	if err != nil {
		return nil, err
	}
	public := ed25519.NewKeyFromSeed(seed(k, 1)).Public().(ed25519.PublicKey)
	reply := &vaultpb.VerifyReply{Key: k.GetName(), Node: n.name, Index: n.index, Valid: ed25519.Verify(public, r.GetData(), r.GetSignature())}
	if reply.Valid {
		reply.Version = 1
	}
	if k.GetState() == "suspended" {
		reply.Warning = "version 1 is suspended"
	}
	return reply, nil
}

func (n *node) Mac(_ context.Context, r *vaultpb.MacRequest) (*vaultpb.MacReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	return &vaultpb.MacReply{Key: k.GetName(), Version: 1, Algorithm: k.GetAlgorithm(), Mac: macOf(k, r.GetData()), Node: n.name, Index: n.index}, nil
}

func (n *node) VerifyMac(_ context.Context, r *vaultpb.VerifyMacRequest) (*vaultpb.VerifyReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	return &vaultpb.VerifyReply{Key: k.GetName(), Version: 1, Node: n.name, Index: n.index, Valid: hmac.Equal(macOf(k, r.GetData()), r.GetMac())}, nil
}

func macOf(k *vaultpb.Key, data []byte) []byte {
	h := hmac.New(sha256.New, seed(k, 1))
	h.Write(data)
	return h.Sum(nil)
}

func (n *node) Encrypt(_ context.Context, r *vaultpb.EncryptRequest) (*vaultpb.EncryptReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	sealed := aead(k).Seal(nil, nil, r.GetPlaintext(), associated(r.GetContext()))
	return &vaultpb.EncryptReply{Key: k.GetName(), Version: 1, Algorithm: k.GetAlgorithm(), Ciphertext: sealed, Node: n.name, Index: n.index}, nil
}

func (n *node) Decrypt(_ context.Context, r *vaultpb.DecryptRequest) (*vaultpb.DecryptReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	opened, err := aead(k).Open(nil, nil, r.GetCiphertext(), associated(r.GetContext()))
	if err != nil {
		return nil, kind.New(kind.NotVerified, "the ciphertext does not verify under this key and context", nil)
	}
	return &vaultpb.DecryptReply{Key: k.GetName(), Version: 1, Plaintext: opened, Node: n.name, Index: n.index}, nil
}

func (n *node) GenerateDataKey(ctx context.Context, r *vaultpb.GenerateDataKeyRequest) (*vaultpb.GenerateDataKeyReply, error) {
	plain := make([]byte, 32)
	if _, err := rand.Read(plain); err != nil {
		return nil, err
	}
	e, err := n.Encrypt(ctx, &vaultpb.EncryptRequest{Name: r.GetName(), Plaintext: plain, Context: r.GetContext()})
	if err != nil {
		return nil, err
	}
	return &vaultpb.GenerateDataKeyReply{Key: e.GetKey(), Version: 1, Plaintext: plain, Ciphertext: e.GetCiphertext(), Node: n.name, Index: n.index}, nil
}

func (n *node) Agree(_ context.Context, r *vaultpb.AgreeRequest) (*vaultpb.AgreeReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(r.GetPeer())
	peer, ok := public.(*ecdh.PublicKey)
	if err != nil || !ok {
		return nil, kind.New(kind.InvalidArgument, "the peer's public key: no DER SubjectPublicKeyInfo of an ecdh-x25519 key", nil)
	}
	version := max(r.GetVersion(), 1)
	private, err := ecdh.X25519().NewPrivateKey(seed(k, version))
	if err != nil {
		return nil, err
	}
	secret, err := private.ECDH(peer)
	return &vaultpb.AgreeReply{Key: k.GetName(), Version: version, Algorithm: k.GetAlgorithm(), Secret: secret, Node: n.name, Index: n.index}, err
}

func kem(k *vaultpb.Key, version uint32) (*mlkem.DecapsulationKey768, error) {
	return mlkem.NewDecapsulationKey768(append(seed(k, version), seed(k, version)...))
}

func (n *node) Encapsulate(_ context.Context, r *vaultpb.EncapsulateRequest) (*vaultpb.EncapsulateReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	dk, err := kem(k, 1)
	if err != nil {
		return nil, err
	}
	shared, ciphertext := dk.EncapsulationKey().Encapsulate()
	return &vaultpb.EncapsulateReply{Key: k.GetName(), Version: 1, Algorithm: k.GetAlgorithm(), SharedKey: shared, Ciphertext: ciphertext, Node: n.name, Index: n.index}, nil
}

func (n *node) Decapsulate(_ context.Context, r *vaultpb.DecapsulateRequest) (*vaultpb.DecapsulateReply, error) {
	k, err := n.use(r.GetName())
	if err != nil {
		return nil, err
	}
	dk, err := kem(k, r.GetVersion())
	if err != nil {
		return nil, err
	}
	shared, err := dk.Decapsulate(r.GetCiphertext())
	if err != nil {
		return nil, kind.New(kind.InvalidArgument, "a ciphertext of the wrong length", nil)
	}
	return &vaultpb.DecapsulateReply{Key: k.GetName(), Version: r.GetVersion(), Algorithm: k.GetAlgorithm(), SharedKey: shared, Node: n.name, Index: n.index}, nil
}

func aead(k *vaultpb.Key) cipher.AEAD {
	block, err := aes.NewCipher(seed(k, 1))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

func associated(context map[string]string) []byte {
	var pairs []string
	for k, v := range context {
		pairs = append(pairs, fmt.Sprintf("%q=%q", k, v))
	}
	sort.Strings(pairs)
	return fmt.Append(nil, pairs)
}

func (n *node) Status(context.Context, *vaultpb.StatusRequest) (*vaultpb.StatusReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reply := &vaultpb.StatusReply{Cluster: "c1", Leader: "n1", Node: n.name, MasterGeneration: 1, RosterVersion: 1, LogSize: uint64(len(n.events))}
	for i, name := range nodeNames {
		s := &vaultpb.NodeStatus{Id: name, Addr: fmt.Sprintf("10.0.0.%d:7400", i+1), Datacenter: "dc1", Hsm: "conclave soft token", Sealed: n.sealed, Role: "follower", Applied: n.index, Digest: "00ff00ff00ff00ff00ff", DigestIndex: n.index, Lease: !n.sealed, Standing: n.standing(name)}
		if name == "n1" {
			s.Role = "leader"
		}
		if n.down[name] {
			s = &vaultpb.NodeStatus{Id: name, Role: "unreachable", Error: "connection refused"}
		}
		reply.Nodes = append(reply.Nodes, s)
	}
	return reply, nil
}

func (n *node) ListNodes(context.Context, *vaultpb.ListNodesRequest) (*vaultpb.ListNodesReply, error) {
	reply := &vaultpb.ListNodesReply{}
	for _, name := range nodeNames {
		reply.Items = append(reply.Items, &vaultpb.Node{Id: name, Datacenter: "dc1", Hsm: "conclave soft token", Gossip: "alive", Voter: true, InRoster: true, Standing: n.standing(name), JoinedAt: timestamppb.New(epoch)})
	}
	return reply, nil
}

func (n *node) CreateJoinToken(ctx context.Context, r *vaultpb.CreateJoinTokenRequest) (*vaultpb.CreateJoinTokenReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.CreateJoinTokenReply, error) {
		ttl := 15 * time.Minute
		if r.GetTtl() != nil {
			ttl = r.GetTtl().AsDuration()
		}
		return &vaultpb.CreateJoinTokenReply{Token: "join-" + r.GetNode(), Node: r.GetNode(), ExpiresAt: timestamppb.New(n.now().AsTime().Add(ttl)), Index: n.index}, nil
	})
}

func (n *node) IssueCertificate(ctx context.Context, r *vaultpb.IssueCertificateRequest) (*vaultpb.IssueCertificateReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.IssueCertificateReply, error) {
		if r.GetRole() != "administrator" && r.GetRole() != "user" {
			return nil, kind.New(kind.InvalidArgument, fmt.Sprintf("unknown role %q", r.GetRole()), nil)
		}
		csr, err := x509.ParseCertificateRequest(r.GetCsr())
		if err != nil || csr.CheckSignature() != nil {
			return nil, kind.New(kind.InvalidArgument, "the request does not verify", nil)
		}
		der, err := n.ca.Sign(csr.PublicKey, time.Now().Add(time.Hour), n.ca.URI(r.GetRole(), r.GetName()))
		record := &vaultpb.Certificate{Serial: fmt.Sprintf("%02x", len(n.certs)+1), Role: r.GetRole(), Name: r.GetName(), NotBefore: timestamppb.New(epoch), NotAfter: timestamppb.New(epoch.Add(time.Hour))}
		n.certs = append(n.certs, record)
		return &vaultpb.IssueCertificateReply{Certificate: der, Ca: n.ca.DER(), Record: proto.CloneOf(record), Index: n.index}, err
	})
}

func (n *node) RevokeCertificate(ctx context.Context, r *vaultpb.RevokeCertificateRequest) (*vaultpb.RevokeCertificateReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.RevokeCertificateReply, error) {
		found := false
		for _, c := range n.certs {
			if c.GetRole() == r.GetRole() && c.GetName() == r.GetName() && (r.GetSerial() == "" || r.GetSerial() == c.GetSerial()) {
				c.Revoked, c.Reason, found = true, r.GetReason(), true
			}
		}
		if !found {
			return nil, kind.New(kind.NotFound, "there is no such certificate", map[string]string{kind.MetaTry: "conclave pki list"})
		}
		return &vaultpb.RevokeCertificateReply{Index: n.index}, nil
	})
}

func (n *node) ListCertificates(_ context.Context, r *vaultpb.ListCertificatesRequest) (*vaultpb.ListCertificatesReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, to, next, err := page(len(n.certs), r.GetPageSize(), r.GetPageToken())
	return &vaultpb.ListCertificatesReply{Items: n.certs[from:to], NextPageToken: next}, err
}

func (n *node) standing(name string) string {
	if n.drained[name] {
		return "drained"
	}
	return "serving"
}

func (n *node) ChangeNode(ctx context.Context, r *vaultpb.ChangeNodeRequest) (*vaultpb.ChangeNodeReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.ChangeNodeReply, error) {
		if !slices.Contains(nodeNames, r.GetNode()) {
			return nil, kind.New(kind.NotFound, fmt.Sprintf("there is no node %q", r.GetNode()), nil)
		}
		if r.GetAction() == vaultpb.NodeAction_NODE_ACTION_REMOVE {
			return nil, kind.New(kind.NeedsApproval, "key k version 1 is being destroyed and node n3 may still have it", nil)
		}
		n.drained[r.GetNode()] = r.GetAction() == vaultpb.NodeAction_NODE_ACTION_DRAIN
		err := n.log(ctx, &vaultpb.Event{Action: r.GetAction().String(), Subject: "node/" + r.GetNode(), Reason: r.GetReason()})
		return &vaultpb.ChangeNodeReply{Node: r.GetNode(), Index: n.index}, err
	})
}

func (n *node) Seal(ctx context.Context, r *vaultpb.SealRequest) (*vaultpb.SealReply, error) {
	return write(n.catalog, ctx, r.GetRequestId(), func() (*vaultpb.SealReply, error) {
		n.sealed = true
		err := n.log(ctx, &vaultpb.Event{Action: "cluster.seal", Subject: "c1", Reason: r.GetReason()})
		return &vaultpb.SealReply{Index: n.index}, err
	})
}

func (n *node) ListEvents(_ context.Context, r *vaultpb.ListEventsRequest) (*vaultpb.EventList, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var matching []*vaultpb.Event
	for _, e := range n.events {
		if r.GetSubject() == "" || e.GetSubject() == r.GetSubject() {
			matching = append(matching, e)
		}
	}
	from, to, next, err := page(len(matching), r.GetPageSize(), r.GetPageToken())
	return &vaultpb.EventList{Items: matching[from:to], NextPageToken: next, Index: n.index}, err
}

// pageOfRecords is small so that a short log takes several pages.
const pageOfRecords = 4

func (n *node) ReadRecords(_ context.Context, r *vaultpb.ReadRecordsRequest) (*vaultpb.ReadRecordsReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	reply := &vaultpb.ReadRecordsReply{Node: cmp.Or(r.GetNode(), n.name)}
	for _, record := range n.records[reply.GetNode()] {
		if record.GetLeaf() < r.GetFrom() || len(reply.Records) == pageOfRecords {
			continue
		}
		if bytes.Equal(record.GetData(), unreadable) {
			reply.DamagedLeaf, reply.Damage = record.GetLeaf(), "authentication failed"
			break
		}
		reply.Records = append(reply.Records, proto.CloneOf(record))
	}
	return reply, nil
}

// unreadable stands for a record that its node cannot open.
var unreadable = []byte("unreadable")

func (n *node) TreeHeads(context.Context, *vaultpb.TreeHeadsRequest) (*vaultpb.TreeHeadsReply, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	root, err := n.root()
	if err != nil {
		return nil, err
	}
	reply := &vaultpb.TreeHeadsReply{}
	for _, name := range nodeNames {
		head := &vaultpb.TreeHead{Node: name, Size: uint64(len(n.events)), Root: root[:], Index: n.index}
		if n.down[name] {
			head = &vaultpb.TreeHead{Node: name, Error: "connection refused"}
		}
		reply.Heads = append(reply.Heads, head)
	}
	return reply, nil
}

// Watch sends what is there, an event a message, and ends; who asks from behind the end waits for something that does not come.
func (n *node) Watch(r *vaultpb.WatchRequest, s grpc.ServerStreamingServer[vaultpb.WatchReply]) error {
	n.mu.Lock()
	events, index := slices.Clone(n.events), n.index
	n.mu.Unlock()
	sent := false
	for _, e := range events {
		if e.GetLeaf() < r.GetFromLeaf() || e.GetIndex() <= r.GetAfterIndex() || r.GetSubject() != "" && e.GetSubject() != r.GetSubject() || r.GetFromNow() {
			continue
		}
		sent = true
		if err := s.Send(&vaultpb.WatchReply{Items: []*vaultpb.Event{e}, NextLeaf: e.GetLeaf() + 1, Index: index}); err != nil {
			return err
		}
	}
	if !sent {
		return kind.New(kind.Denied, "this node has no more events", nil)
	}
	return nil
}
