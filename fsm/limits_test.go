package fsm_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
)

func TestValidNames(t *testing.T) {
	long := strings.Repeat("x", 600)
	for what, c := range map[string]struct {
		valid     func(string) error
		good, bad []string
	}{
		"key name": {fsm.ValidKeyName, []string{"a", "payments/eu", "A.b_c-9", "1/2/3", long[:fsm.MaxKeyName]},
			[]string{"", "/", "/a", "a/", "a//b", "-a", "a/-b", ".", "a/..", "a b", "é", "a\x00", long}},
		"node id": {fsm.ValidNodeID, []string{"n1", "a", "node-1", long[:63]}, []string{"", "N1", "-a", "a-", "a.b", "a_b", long[:64], "é"}},
		"person":  {fsm.ValidPersonName, []string{"bob", "Bob.Smith", "9_-", long[:64]}, []string{"", "-bob", "b ob", "b/ob", long[:65], "böb", long}},
		"cluster": {fsm.ValidClusterID, []string{"demo", "a.b-c.d", uuid("cluster")}, []string{"", ".", "a..b", "A", "a_b", long}},
		"reason":  {fsm.ValidReason, []string{"", "left the company", "größer", long[:fsm.MaxReason]}, []string{"a\nb", "\x7f", "\xff", long}},
	} {
		for _, s := range c.good {
			if err := c.valid(s); err != nil {
				t.Errorf("%s %q: %v", what, s, err)
			}
		}
		for _, s := range c.bad {
			if err := c.valid(s); !errors.Is(err, fsm.ErrInvalid) || len(err.Error()) > 1000 {
				t.Errorf("%s %q: %v", what, s, err)
			}
		}
	}
}

func TestValidLabel(t *testing.T) {
	for _, l := range []fsm.Label{{Name: "env", Value: "any text, even ü"}, {Name: "users", Value: "a, b ,c"}, {Name: "users"}} {
		if err := fsm.ValidLabel(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, l := range []fsm.Label{{}, {Name: "a b"}, {Name: "a", Value: "\n"}, {Name: "a", Value: strings.Repeat("x", 5000)}, {Name: "users", Value: "a,b c"}} {
		if err := fsm.ValidLabel(l); !errors.Is(err, fsm.ErrInvalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

// TestEveryFieldHasALimit spoils one field of a good command at a time; each is refused as invalid, in words.
func TestEveryFieldHasALimit(t *testing.T) {
	big := func(n int) []byte { return make([]byte, n) }
	text := strings.Repeat("x", 600)
	good := fsm.CreateKey{ID: fsm.KeyID(uuid("k")), Name: "k", Algorithm: "ed25519", Material: material(1)}
	spoilKey := func(change func(c *fsm.CreateKey)) fsm.Command { c := good; change(&c); return c }
	spoilNode := func(change func(n *fsm.Node)) fsm.Command {
		n := node("n9")
		change(&n)
		return fsm.AdmitNode{Node: n}
	}
	crowd := make([]fsm.Label, fsm.MaxLabels+1)
	for name, c := range map[string]fsm.Command{
		"key id":            spoilKey(func(c *fsm.CreateKey) { c.ID = "1" }),
		"key labels":        spoilKey(func(c *fsm.CreateKey) { c.Labels = crowd }),
		"label twice":       spoilKey(func(c *fsm.CreateKey) { c.Labels = []fsm.Label{{Name: "a"}, {Name: "a"}} }),
		"algorithm":         spoilKey(func(c *fsm.CreateKey) { c.Algorithm = text }),
		"public key":        spoilKey(func(c *fsm.CreateKey) { c.Material.PublicKey = big(3073) }),
		"no blob":           spoilKey(func(c *fsm.CreateKey) { c.Material.Blob = nil }),
		"blob":              spoilKey(func(c *fsm.CreateKey) { c.Material.Blob = big(4097) }),
		"short MAC":         spoilKey(func(c *fsm.CreateKey) { c.Material.MAC = big(31) }),
		"node id":           spoilNode(func(n *fsm.Node) { n.ID = "N" }),
		"no address":        spoilNode(func(n *fsm.Node) { n.ClusterAddr = "" }),
		"address":           spoilNode(func(n *fsm.Node) { n.APIAddr = text }),
		"datacenter":        spoilNode(func(n *fsm.Node) { n.Datacenter = "\n" }),
		"model":             spoilNode(func(n *fsm.Node) { n.Device.HSM = text }),
		"no identity":       spoilNode(func(n *fsm.Node) { n.IdentityKey = nil }),
		"exchange key":      spoilNode(func(n *fsm.Node) { n.ExchangeKey = big(64) }),
		"certificate":       spoilNode(func(n *fsm.Node) { n.Certificate = big(16<<10 + 1) }),
		"secrets":           spoilNode(func(n *fsm.Node) { n.Secrets = big(16<<10 + 1) }),
		"algorithms":        spoilNode(func(n *fsm.Node) { n.Device.Algorithms = make([]string, 65) }),
		"algorithm of node": spoilNode(func(n *fsm.Node) { n.Device.Algorithms = []string{"a b"} }),
		"library":           spoilNode(func(n *fsm.Node) { n.Device.Library = "a\nb" }),
		"long library":      spoilNode(func(n *fsm.Node) { n.Device.Library = strings.Repeat("l", 513) }),
		"lack":              spoilNode(func(n *fsm.Node) { n.Device.Lacks = []fsm.Lack{{Algorithm: "a b"}} }),
		"reason of a lack":  spoilNode(func(n *fsm.Node) { n.Device.Lacks = []fsm.Lack{{Algorithm: "a", Why: "\x00"}} }),
		"lacks":             spoilNode(func(n *fsm.Node) { n.Device.Lacks = make([]fsm.Lack, 65) }),
		"missing operation": spoilNode(func(n *fsm.Node) { n.Device.Lacks = []fsm.Lack{{Algorithm: "a", Operations: []string{"a b"}}} }),
		"capability":        spoilNode(func(n *fsm.Node) { n.Device.Capabilities = []fsm.Capability{{Algorithm: "a b"}} }),
		"capabilities":      spoilNode(func(n *fsm.Node) { n.Device.Capabilities = make([]fsm.Capability, 65) }),
		"operation": spoilNode(func(n *fsm.Node) {
			n.Device.Capabilities = []fsm.Capability{{Algorithm: "a", Operations: []string{""}}}
		}),
		"operations": spoilNode(func(n *fsm.Node) {
			n.Device.Capabilities = []fsm.Capability{{Algorithm: "a", Operations: make([]string, 33)}}
		}),
		"token id":        fsm.CreateJoinToken{ID: "x", Node: "n9", Hash: big(32)},
		"token hash":      fsm.CreateJoinToken{ID: uuid("t"), Node: "n9", Hash: big(31)},
		"seal reason":     fsm.SealCluster{Reason: text},
		"revoke reason":   fsm.RevokeCertificates{Serial: "a1", Reason: text},
		"abort reason":    fsm.AbortCeremony{Ceremony: fsm.CeremonyID(uuid("genesis")), Reason: text},
		"change reason":   fsm.ChangeKey{Name: "there", Action: fsm.ActionSuspend, Reason: text},
		"barrier's nodes": fsm.CompleteBarrier{Restriction: 1, Waited: make([]fsm.NodeID, fsm.MaxNodes+1)},
		"unseal nonce":    fsm.StartUnseal{ID: fsm.CeremonyID(uuid("u")), Nonce: big(31), Custodian: "ada"},
	} {
		s := cluster(t, true)
		s.must(fsm.CreateKey{ID: fsm.KeyID(uuid("there")), Name: "there", Algorithm: "ed25519", Material: material(1)})
		if r, events := s.apply(c); r.Code != fsm.CodeInvalid || r.Message == "" || len(events) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestInitHasLimits(t *testing.T) {
	for name, spoil := range map[string]func(c *fsm.InitCluster){
		"node CA":     func(c *fsm.InitCluster) { c.NodeCA = nil },
		"client CA":   func(c *fsm.InitCluster) { c.ClientCA = nil },
		"node":        func(c *fsm.InitCluster) { c.Node = fsm.Node{} },
		"certificate": func(c *fsm.InitCluster) { c.Certificates[0].Name = "" },
	} {
		s := newStage(t)
		c := s.init(true)
		spoil(&c)
		if r, _ := s.apply(c); r.Code != fsm.CodeInvalid || s.m.State().Initialised() {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s := newStage(t)
	c := s.init(true)
	c.Certificates = append(c.Certificates, c.Certificates[0])
	if r, _ := s.apply(c); r.Code != fsm.CodeExists || s.m.State().Initialised() {
		t.Errorf("a certificate twice: %+v", r)
	}
}

func TestActorIsNamed(t *testing.T) {
	s := cluster(t, true)
	for _, who := range []fsm.Actor{"", "a\nb", fsm.Actor(strings.Repeat("x", 513))} {
		r, _ := s.applyEntry(fsm.Entry{Command: fsm.SealCluster{}, Actor: who, RequestID: s.requestID()})
		if r.Code != fsm.CodeInvalid {
			t.Errorf("actor %q: %+v", who, r)
		}
	}
}

func TestGenesisHasLimits(t *testing.T) {
	for name, spoil := range map[string]func(c *fsm.StartGenesis){
		"id":           func(c *fsm.StartGenesis) { c.ID = "g" },
		"nonce":        func(c *fsm.StartGenesis) { c.Nonce = nil },
		"boot":         func(c *fsm.StartGenesis) { c.DealerBoot = "" },
		"commitment":   func(c *fsm.StartGenesis) { c.DealerCommitment = nil },
		"version":      func(c *fsm.StartGenesis) { c.Roster.Version = 2 },
		"cluster":      func(c *fsm.StartGenesis) { c.Roster.ClusterID = "other" },
		"bad cluster":  func(c *fsm.StartGenesis) { c.Roster.ClusterID = "" },
		"signed":       func(c *fsm.StartGenesis) { c.Roster = signedBy(c.Roster, "ada") },
		"nobody":       func(c *fsm.StartGenesis) { c.Roster.Custodians = nil },
		"a crowd":      func(c *fsm.StartGenesis) { c.Roster.Custodians = make([]fsm.Custodian, fsm.MaxCustodians+1) },
		"no node":      func(c *fsm.StartGenesis) { c.Roster.Nodes = nil },
		"node twice":   func(c *fsm.StartGenesis) { c.Roster.Nodes = rosterNodes("n1", "n1") },
		"node id":      func(c *fsm.StartGenesis) { c.Roster.Nodes[0].ID = "" },
		"exchange key": func(c *fsm.StartGenesis) { c.Roster.Nodes[0].ExchangeKey = nil },
		"name":         func(c *fsm.StartGenesis) { c.Roster.Custodians[0].Name = "" },
		"no recipient": func(c *fsm.StartGenesis) { c.Roster.Custodians[0].Recipient = "" },
		"recipient":    func(c *fsm.StartGenesis) { c.Roster.Custodians[0].Recipient = "\n" },
		"signing key":  func(c *fsm.StartGenesis) { c.Roster.Custodians[0].SigningKey = nil },
		"one hand":     func(c *fsm.StartGenesis) { c.Roster.Custodians[1].SigningKey = c.Roster.Custodians[0].SigningKey },
	} {
		s := newStage(t)
		s.must(s.init(true))
		c := fsm.StartGenesis{
			ID: fsm.CeremonyID(uuid("g")), Nonce: digest("g"), Roster: s.roster(2, "ada", "bo"), Dealer: "n1", DealerBoot: "b", DealerCommitment: digest("c"),
		}
		spoil(&c)
		if r, events := s.apply(c); r.Code != fsm.CodeInvalid || len(events) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestDealHasLimits(t *testing.T) {
	for name, spoil := range map[string]func(d *fsm.Deal){
		"points":       func(d *fsm.Deal) { d.Commitments = d.Commitments[:1] },
		"empty point":  func(d *fsm.Deal) { d.Commitments[0] = nil },
		"check values": func(d *fsm.Deal) { d.Check = d.Check[:2] },
		"check value":  func(d *fsm.Deal) { d.Check[0] = make([]byte, 33) },
		"transcript":   func(d *fsm.Deal) { d.Transcript = [32]byte{} },
		"share":        func(d *fsm.Deal) { d.Shares[0].Ciphertext = make([]byte, 4097) },
		"a share less": func(d *fsm.Deal) { d.Shares = d.Shares[:1] },
		"share twice":  func(d *fsm.Deal) { d.Shares[1] = d.Shares[0] },
		"stranger":     func(d *fsm.Deal) { d.Shares[0].Custodian = "mallory" },
	} {
		s := newStage(t)
		s.must(s.init(true))
		r := s.roster(2, "ada", "bo")
		id := fsm.CeremonyID(uuid("g"))
		s.must(fsm.StartGenesis{ID: id, Nonce: digest("g"), Roster: r, Dealer: "n1", DealerBoot: "b", DealerCommitment: digest("c")})
		open, _ := s.m.State().Ceremony(id)
		for _, who := range []string{"ada", "bo"} {
			s.must(commitment(open, who, who))
		}
		if r, _ := s.apply(fsm.RecordReveal{Ceremony: id, Custodian: "ada", Boot: "b", Matches: true, Reason: "\n"}); r.Code != fsm.CodeInvalid {
			t.Errorf("a reason of two lines: %+v", r)
		}
		for _, who := range []fsm.CustodianName{"ada", "bo"} {
			s.must(fsm.RecordReveal{Ceremony: id, Custodian: who, Matches: true, Boot: "b"})
		}
		d := deal(r)
		spoil(&d)
		if r, events := s.apply(fsm.PublishDeal{Ceremony: id, Deal: d, Boot: "b"}); r.Code != fsm.CodeInvalid || len(events) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
