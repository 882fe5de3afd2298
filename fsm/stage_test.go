package fsm_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// stage is a machine with a clock, and deterministic people, nodes and ids to play on it.
type stage struct {
	t     testing.TB
	m     *fsm.Machine
	clock time.Time
	index uint64
	ids   int
	log   [][]byte // what was applied, from index 1
}

var opening = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func newStage(t testing.TB) *stage { return &stage{t: t, m: fsm.New(), clock: opening} }

const (
	clusterID = "demo"
	alice     = fsm.Actor("spiffe://demo/administrator/alice")
)

var everyAlgorithm = []string{"aes-256-gcm", "ecdsa-p256", "ecdsa-secp256k1", "ed25519", "hmac-sha256"}

// apply proposes as alice with a fresh request id.
func (s *stage) apply(c fsm.Command) (fsm.Result, []fsm.Event) {
	s.t.Helper()
	return s.applyEntry(fsm.Entry{Command: c, Actor: alice, RequestID: s.requestID()})
}

func (s *stage) applyEntry(e fsm.Entry) (fsm.Result, []fsm.Event) {
	s.t.Helper()
	if e.Time.IsZero() {
		e = e.Stamped(s.clock)
	}
	return s.applyBytes(encode(s.t, e))
}

func (s *stage) applyBytes(data []byte) (fsm.Result, []fsm.Event) {
	s.t.Helper()
	s.index++
	s.log = append(s.log, data)
	r, events, err := s.m.Apply(s.index, data)
	if err != nil {
		s.t.Fatalf("index %d: %v", s.index, err)
	}
	s.m.Publish()
	return r, events
}

// must applies and expects CodeOK.
func (s *stage) must(c fsm.Command) fsm.Result {
	s.t.Helper()
	r, _ := s.apply(c)
	if r.Code != fsm.CodeOK {
		s.t.Fatalf("%T: %s: %s", c, r.Code, r.Message)
	}
	return r
}

func (s *stage) requestID() fsm.RequestID {
	s.ids++
	return requestID(s.clock, s.ids)
}

func encode(t testing.TB, e fsm.Entry) []byte {
	t.Helper()
	data, err := fsm.EncodeEntry(e)
	if err != nil {
		t.Fatalf("encoding %T: %v", e.Command, err)
	}
	return data
}

// requestID is a UUIDv7 of a time; n tells ids of one millisecond apart.
func requestID(at time.Time, n int) fsm.RequestID {
	ms := fmt.Sprintf("%012x", at.UnixMilli())
	return fsm.RequestID(fmt.Sprintf("%s-%s-7000-8000-%012x", ms[:8], ms[8:], n))
}

// uuid is a stable id for a name.
func uuid(name string) string {
	h := fmt.Sprintf("%x", sha256.Sum256([]byte("uuid of "+name)))
	return fmt.Sprintf("%s-%s-4%s-8%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:32])
}

func digest(of string) []byte {
	h := sha256.Sum256([]byte(of))
	return h[:]
}

func privateKey(name string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(digest("seed of " + name))
}

func sign(who string, message []byte) []byte { return ed25519.Sign(privateKey(who), message) }

func custodians(names ...string) []fsm.Custodian {
	var all []fsm.Custodian
	for _, name := range names {
		all = append(all, fsm.Custodian{
			Name: fsm.CustodianName(name), Recipient: "age1" + name, SigningKey: privateKey(name).Public().(ed25519.PublicKey),
		})
	}
	return all
}

func node(id string) fsm.Node {
	return fsm.Node{
		ID: fsm.NodeID(id), Datacenter: "dc1", ClusterAddr: id + ":7701", APIAddr: id + ":7700",
		IdentityKey: []byte("identity of " + id), ExchangeKey: exchangeKey(id), Certificate: []byte("certificate of " + id),
		Device:  fsm.Device{HSM: "soft token", Algorithms: slices.Clone(everyAlgorithm)},
		Secrets: []byte("sealed to " + id),
	}
}

func exchangeKey(of string) []byte { return slices.Concat([]byte{4}, digest("x"+of), digest("y"+of)) }

func certificate(role fsm.Role, name, serial string, now time.Time) fsm.Certificate {
	return fsm.Certificate{Serial: serial, Role: role, Name: name, NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour)}
}

func material(generation uint32) fsm.Material {
	return fsm.Material{Generation: generation, HardwareSafe: true, PublicKey: []byte("public"), Blob: []byte("blob"), MAC: digest("mac")}
}

func deal(r fsm.Roster) fsm.Deal {
	d := fsm.Deal{Generation: 1, Check: [][]byte{{1}, {2}, {3}}, Transcript: [32]byte(digest("transcript"))}
	for i := range r.Threshold {
		d.Commitments = append(d.Commitments, digest(fmt.Sprint("point ", i)))
	}
	for _, c := range r.Custodians {
		d.Shares = append(d.Shares, fsm.SealedShare{Custodian: c.Name, Ciphertext: []byte("share of " + string(c.Name))})
	}
	return d
}

// roster is the genesis roster of the members.
func (s *stage) roster(threshold uint32, names ...string) fsm.Roster {
	r := fsm.Roster{Version: 1, ClusterID: clusterID, Threshold: threshold, Custodians: custodians(names...)}
	for _, n := range s.m.State().Nodes() {
		r.Nodes = append(r.Nodes, fsm.RosterNode{ID: n.ID, ExchangeKey: n.ExchangeKey})
	}
	return r
}

func (s *stage) init(dev bool) fsm.InitCluster {
	return fsm.InitCluster{
		ClusterID: clusterID, Dev: dev, FeatureLevel: 1, NodeCA: []byte("node ca"), ClientCA: []byte("client ca"), Node: node("n1"),
		Certificates: []fsm.Certificate{certificate(fsm.RoleAdministrator, "alice", "a1", s.clock)},
	}
}

func (s *stage) admit(n fsm.Node) {
	s.t.Helper()
	id := string(n.ID)
	s.must(fsm.CreateJoinToken{ID: uuid("token " + id), Node: n.ID, Hash: digest(id), ExpiresAt: s.clock.Add(time.Hour)})
	s.must(fsm.AdmitNode{TokenID: uuid("token " + id), TokenHash: digest(id), Node: n})
}

func commitment(c fsm.Ceremony, who, value string) fsm.CommitEntropy {
	return fsm.CommitEntropy{
		Ceremony: c.ID, Custodian: fsm.CustodianName(who), Commitment: digest(value),
		Signature:       sign(who, fsm.CommitmentMessage(c.ID, c.Nonce, fsm.CustodianName(who), digest(value))),
		RosterSignature: sign(who, fsm.RosterMessage(fsm.RosterHash(c.Roster))),
	}
}

func acknowledgement(c fsm.Ceremony, who string) fsm.AcknowledgeShare {
	name := fsm.CustodianName(who)
	return fsm.AcknowledgeShare{Ceremony: c.ID, Custodian: name, Signature: sign(who, fsm.AcknowledgementMessage(c.ID, name, c.Deal.Transcript))}
}

func unsealRequest(id, nonce, who string) fsm.StartUnseal {
	name := fsm.CustodianName(who)
	return fsm.StartUnseal{
		ID: fsm.CeremonyID(uuid(id)), Nonce: digest(nonce), Custodian: name, Signature: sign(who, fsm.UnsealRequestMessage(clusterID, name, digest(nonce))),
	}
}

// genesis plays the whole ceremony.
func (s *stage) genesis(threshold uint32, names ...string) {
	s.t.Helper()
	id := fsm.CeremonyID(uuid("genesis"))
	s.must(fsm.StartGenesis{
		ID: id, Nonce: digest("genesis nonce"), Roster: s.roster(threshold, names...), Dealer: "n1", DealerBoot: "boot-1",
		DealerCommitment: digest("dealer"),
	})
	open, _ := s.m.State().Ceremony(id)
	for _, who := range names {
		s.must(commitment(open, who, "entropy of "+who))
	}
	for _, who := range names {
		s.must(fsm.RecordReveal{Ceremony: id, Custodian: fsm.CustodianName(who), Matches: true, Boot: "boot-1"})
	}
	s.must(fsm.PublishDeal{Ceremony: id, Deal: deal(open.Roster), Boot: "boot-1"})
	open, _ = s.m.State().Ceremony(id)
	for _, who := range names {
		s.must(acknowledgement(open, who))
	}
}

// cluster is the usual stage: nodes n1 to n3, a master shared 2 of 3.
func cluster(t testing.TB, dev bool) *stage {
	t.Helper()
	s := newStage(t)
	s.must(s.init(dev))
	s.admit(node("n2"))
	s.admit(node("n3"))
	s.genesis(2, "ada", "bo", "cy")
	return s
}
