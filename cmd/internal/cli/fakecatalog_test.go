package cli_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// catalog is the state that the fake nodes share. It behaves as the API says where the commands can tell, with a clock
// that moves a second per change and ids that count, so that outputs can be compared word for word.
type catalog struct {
	mu       sync.Mutex
	index    uint64
	keys     map[string]*vaultpb.Key
	classes  map[string]*vaultpb.Class
	events   []*vaultpb.Event
	records  map[string][]*vaultpb.Record // by node: what its disk holds
	roots    []tlog.Hash                  // stored hashes of the true tree
	requests map[string]proto.Message     // results by request id
	certs    []*vaultpb.Certificate
	sealed   bool
	down     map[string]bool
	drained  map[string]bool
	pending  bool // restrictions are committed but not in force
}

func newCatalog() *catalog {
	return &catalog{
		keys: map[string]*vaultpb.Key{}, classes: map[string]*vaultpb.Class{}, records: map[string][]*vaultpb.Record{}, requests: map[string]proto.Message{}, down: map[string]bool{},
		drained: map[string]bool{},
	}
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *catalog) now() *timestamppb.Timestamp {
	return timestamppb.New(epoch.Add(time.Duration(c.index) * time.Second))
}

// log appends an event and its record on every node.
func (c *catalog) log(ctx context.Context, e *vaultpb.Event) error {
	e.Leaf, e.Index, e.Time, e.Actor = uint64(len(c.events)), c.index, c.now(), caller(ctx)
	if strings.HasPrefix(e.GetAction(), "key.") {
		e.Subject = "key/" + e.GetSubject()
	}
	data := fsm.Event{
		Leaf: e.GetLeaf(), Index: e.GetIndex(), Time: e.GetTime().AsTime(), Actor: fsm.Actor(e.GetActor()), Action: e.GetAction(),
		Subject: e.GetSubject(), SubjectID: e.GetSubjectId(), Version: fsm.Version(e.GetVersion()), From: e.GetFrom(), To: e.GetTo(),
		Reason: e.GetReason(), RequestID: fsm.RequestID(e.GetRequestId()), Detail: e.GetDetail(),
	}.Encode()
	c.events = append(c.events, e)
	hash := tlog.RecordHash(data)
	for _, n := range nodeNames {
		c.records[n] = append(c.records[n], &vaultpb.Record{Leaf: e.Leaf, Data: append([]byte(nil), data...), Hash: hash[:]})
	}
	stored, err := tlog.StoredHashes(int64(e.Leaf), data, c.hashes())
	c.roots = append(c.roots, stored...)
	return err
}

func (c *catalog) hashes() tlog.HashReaderFunc {
	return func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, i := range indexes {
			found = append(found, c.roots[i])
		}
		return found, nil
	}
}

func (c *catalog) root() (tlog.Hash, error) { return tlog.TreeHash(int64(len(c.events)), c.hashes()) }

// write runs one change under its request id: a repeat gets the first result.
func write[R proto.Message](c *catalog, ctx context.Context, requestID string, change func() (R, error)) (R, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var none R
	if strings.HasPrefix(caller(ctx), "spiffe://c1/user/") {
		return none, kind.New(kind.Denied, "users may not change the catalog", nil)
	}
	if requestID == "" {
		return none, kind.New(kind.InvalidArgument, "a write needs a request id", nil)
	}
	if first, ok := c.requests[requestID]; ok {
		return first.(R), nil
	}
	c.index++
	reply, err := change()
	if err != nil {
		c.index--
		return none, err
	}
	c.requests[requestID] = proto.Clone(reply)
	return reply, nil
}

func caller(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info := p.AuthInfo.(credentials.TLSInfo)
	return info.State.PeerCertificates[0].URIs[0].String()
}

// key finds a key; the caller holds the lock.
func (c *catalog) key(name string) (*vaultpb.Key, error) {
	k, ok := c.keys[name]
	if !ok {
		return nil, kind.New(kind.NotFound, fmt.Sprintf("there is no key %q", name), nil)
	}
	return k, nil
}

// use finds a key that may be used now.
func (c *catalog) use(name string) (*vaultpb.Key, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed {
		return nil, kind.New(kind.Sealed, "the node is sealed", nil)
	}
	k, err := c.key(name)
	if err != nil {
		return nil, err
	}
	if k.GetState() != "active" {
		return nil, kind.New(kind.KeyState, fmt.Sprintf("key %q is %s", name, k.GetState()), nil)
	}
	return proto.CloneOf(k), nil
}

func (c *catalog) create(ctx context.Context, r *vaultpb.CreateKeyRequest) (*vaultpb.KeyReply, error) {
	if _, taken := c.keys[r.GetName()]; taken {
		return nil, kind.New(kind.AlreadyExists, fmt.Sprintf("the name %q is taken", r.GetName()), nil)
	}
	k := &vaultpb.Key{
		Id: fmt.Sprintf("key-%d", len(c.keys)+1), Name: r.GetName(), Algorithm: r.GetAlgorithm(), Class: r.GetClass(), State: "active",
		PrimaryVersion: 1, Owner: caller(ctx), Labels: r.GetLabels(), CreatedAt: c.now(), Description: r.GetDescription(), Links: r.GetLinks(),
		Versions: []*vaultpb.KeyVersion{{Version: 1, State: "active", CreatedAt: c.now(), ActivatedAt: c.now(), ChangedAt: c.now(), MasterGeneration: 1}},
	}
	if k.Exportable = "no"; r.GetExportable() {
		k.Exportable, k.Versions[0].Exportable = "yes", true
	}
	c.keys[k.GetName()] = k
	err := c.log(ctx, &vaultpb.Event{Action: "key.create", Subject: k.GetName(), SubjectId: k.GetId(), Version: 1, To: "active", RequestId: r.GetRequestId()})
	return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: c.index}, err
}

func (c *catalog) rotate(ctx context.Context, r *vaultpb.RotateKeyRequest) (*vaultpb.KeyReply, error) {
	k, err := c.key(r.GetName())
	if err != nil {
		return nil, err
	}
	k.PrimaryVersion++
	k.State = "active"
	k.Versions = append(k.Versions, &vaultpb.KeyVersion{Version: k.PrimaryVersion, State: "active", CreatedAt: c.now(), ChangedAt: c.now(), MasterGeneration: 1})
	err = c.log(ctx, &vaultpb.Event{Action: "key.rotate", Subject: k.GetName(), Version: k.PrimaryVersion, To: "active"})
	return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: c.index}, err
}

// becomes is the state after each action, and the states that it may start from.
var becomes = map[vaultpb.KeyAction]struct{ to, from string }{
	vaultpb.KeyAction_KEY_ACTION_SUSPEND:        {"suspended", "active"},
	vaultpb.KeyAction_KEY_ACTION_RESUME:         {"active", "suspended"},
	vaultpb.KeyAction_KEY_ACTION_DEACTIVATE:     {"deactivated", "active suspended"},
	vaultpb.KeyAction_KEY_ACTION_COMPROMISE:     {"compromised", "active suspended deactivated"},
	vaultpb.KeyAction_KEY_ACTION_REVOKE:         {"deactivated", "active suspended"},
	vaultpb.KeyAction_KEY_ACTION_DESTROY:        {"destroy-scheduled", "deactivated compromised suspended"},
	vaultpb.KeyAction_KEY_ACTION_CANCEL_DESTROY: {"deactivated", "destroy-scheduled"},
}

func (c *catalog) change(ctx context.Context, r *vaultpb.ChangeKeyRequest) (*vaultpb.KeyReply, error) {
	k, err := c.key(r.GetName())
	if err != nil {
		return nil, err
	}
	step := becomes[r.GetAction()]
	if !strings.Contains(step.from, k.GetState()) {
		return nil, kind.New(kind.KeyState, fmt.Sprintf("key %q is %s", k.GetName(), k.GetState()), map[string]string{kind.MetaTry: "conclave key deactivate " + k.GetName()})
	}
	from := k.GetState()
	k.State = step.to
	v := k.GetVersions()[k.GetPrimaryVersion()-1]
	v.State, v.Reason, v.ChangedAt, v.OccurredAt = step.to, r.GetReason(), c.now(), r.GetOccurredAt()
	if r.GetAfter() != nil {
		v.DestroyAt = timestamppb.New(c.now().AsTime().Add(r.GetAfter().AsDuration()))
	}
	k.Barrier = &vaultpb.Barrier{State: "done", Index: c.index}
	action := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.GetAction().String(), "KEY_ACTION_")), "_", "-")
	err = c.log(ctx, &vaultpb.Event{Action: "key." + action, Subject: k.GetName(), Version: k.PrimaryVersion, From: from, To: step.to, Reason: r.GetReason()})
	return &vaultpb.KeyReply{Key: proto.CloneOf(k), Index: c.index}, err
}

// page cuts one page of n items; a token is the position of the next item.
func page(n int, size int32, token string) (from, to int, next string, err error) {
	if token != "" {
		if from, err = strconv.Atoi(token); err != nil || from > n {
			return 0, 0, "", kind.New(kind.InvalidArgument, "the page token is not one of this list", nil)
		}
	}
	if size == 0 {
		size = 100
	}
	if to = min(n, from+int(size)); to < n {
		next = strconv.Itoa(to)
	}
	return from, to, next, nil
}

func (c *catalog) names(prefix string) []string {
	var names []string
	for n := range c.keys {
		if strings.HasPrefix(n, prefix) {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return names
}

// seed of a key's version: derived, so that signatures are the same in every run.
func seed(k *vaultpb.Key, version uint32) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", k.GetId(), version))
	return sum[:]
}

func publicPEM(k *vaultpb.Key, version uint32) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(seed(k, version)).Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}
