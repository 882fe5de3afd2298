package policy_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

const clusterID = "c1"

// now is the time of the log: request ids must be of the same hour.
var now = time.Now().UTC().Truncate(time.Millisecond)

// stage is a state machine and the index it is at.
type stage struct {
	t     testing.TB
	m     *fsm.Machine
	index uint64
}

func newStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{t: t, m: fsm.New()}
	s.apply("", fsm.InitCluster{
		ClusterID: clusterID, FeatureLevel: 1, NodeCA: []byte{1}, ClientCA: []byte{2},
		Node: fsm.Node{ID: "n1", ClusterAddr: "a:1", APIAddr: "a:2", IdentityKey: []byte{3}, ExchangeKey: make([]byte, 65), JoinedAt: now},
	})
	return s
}

func (s *stage) apply(id fsm.RequestID, c fsm.Command) {
	s.t.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{Command: c, Actor: "spiffe://c1/node/n1", RequestID: id}.Stamped(now))
	if err != nil {
		s.t.Fatal(err)
	}
	s.index++
	r, _, err := s.m.Apply(s.index, data)
	if err != nil || r.Code != fsm.CodeOK {
		s.t.Fatalf("%T: %v, %v %s", c, err, r.Code, r.Message)
	}
	s.m.Publish()
}

func requestID() fsm.RequestID { return fsm.RequestID(uuid.Must(uuid.NewV7()).String()) }

// caller is somebody whose certificate the cluster issued.
func (s *stage) caller(role fsm.Role, name, serial string) policy.Caller {
	s.t.Helper()
	s.apply(requestID(), fsm.RecordCertificate{Certificate: fsm.Certificate{
		Serial: serial, Role: role, Name: name, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	return policy.Caller{Cluster: clusterID, Role: role, Name: name, Serial: serial}
}

func as(c policy.Caller, change func(*policy.Caller)) policy.Caller {
	change(&c)
	return c
}

func labelled(users string) fsm.Key {
	return fsm.Key{Name: "payments/eu", Labels: []fsm.Label{{Name: "purpose", Value: "ada"}, {Name: "users", Value: users}}}
}

// TestWhoMayDoWhat is the whole policy: every kind of caller, and what each may do.
func TestWhoMayDoWhat(t *testing.T) {
	s := newStage(t)
	admin, ada, gone := s.caller(fsm.RoleAdministrator, "root", "a1"), s.caller(fsm.RoleUser, "ada", "b2"), s.caller(fsm.RoleAdministrator, "former", "c3")
	s.apply(requestID(), fsm.RevokeCertificates{Role: fsm.RoleAdministrator, Name: "former", Reason: "left"})
	again := s.caller(fsm.RoleAdministrator, "former", "d4") // came back, with a new certificate
	nobody, denied := policy.ErrUnauthenticated, policy.ErrDenied
	for _, row := range []struct {
		name                       string
		caller                     policy.Caller
		identify, administer       error
		own, others, bare, nowhere error // using a key labelled users=ada, one of others, one without labels, one that is not there
	}{
		{"administrator", admin, nil, nil, nil, nil, nil, nil},
		{"user", ada, nil, denied, nil, denied, denied, denied},
		{"revoked", gone, nobody, nobody, nobody, nobody, nobody, nobody},
		{"issued after a revocation", again, nil, nil, nil, nil, nil, nil},
		{"not recorded", as(admin, func(c *policy.Caller) { c.Serial = "ff" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"no serial", as(admin, func(c *policy.Caller) { c.Serial = "" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"upper-case serial", as(admin, func(c *policy.Caller) { c.Serial = "A1" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"another cluster", as(admin, func(c *policy.Caller) { c.Cluster = "c2" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"another's serial", as(ada, func(c *policy.Caller) { c.Serial = admin.Serial }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"a user who says administrator", as(ada, func(c *policy.Caller) { c.Role = fsm.RoleAdministrator }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"a user with another name", as(ada, func(c *policy.Caller) { c.Name = "bob" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"a node", as(admin, func(c *policy.Caller) { c.Role, c.Name = "node", "n1" }), nobody, nobody, nobody, nobody, nobody, nobody},
		{"nobody", policy.Caller{}, nobody, nobody, nobody, nobody, nobody, nobody},
	} {
		t.Run(row.name, func(t *testing.T) {
			st := s.m.State()
			for what, c := range map[string]struct{ got, want error }{
				"identify":        {policy.Identify(st, row.caller), row.identify},
				"administer":      {policy.Administer(st, row.caller), row.administer},
				"use its own":     {policy.Use(st, row.caller, labelled("bob, ada"), true), row.own},
				"use another's":   {policy.Use(st, row.caller, labelled("bob,adam,ADA"), true), row.others},
				"use one without": {policy.Use(st, row.caller, fsm.Key{Name: "x"}, true), row.bare},
				"use none":        {policy.Use(st, row.caller, fsm.Key{}, false), row.nowhere},
				// A key that is not there has no labels that count, whatever the caller of Use passes.
				"use a ghost": {policy.Use(st, row.caller, labelled("ada"), false), row.nowhere},
			} {
				if !errors.Is(c.got, c.want) || (c.want == nil && c.got != nil) {
					t.Errorf("%s: %v, want %v", what, c.got, c.want)
				}
			}
		})
	}
}

// TestNobodyBeforeTheCluster: an empty state knows nobody.
func TestNobodyBeforeTheCluster(t *testing.T) {
	empty := fsm.New().State()
	for _, c := range []policy.Caller{{}, {Role: fsm.RoleAdministrator, Name: "root", Serial: "a1", Cluster: clusterID}} {
		for what, err := range map[string]error{
			"identify": policy.Identify(empty, c), "administer": policy.Administer(empty, c), "use": policy.Use(empty, c, labelled("root"), true),
		} {
			if !errors.Is(err, policy.ErrUnauthenticated) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// TestAStrangerLearnsNothing: absent and forbidden are one text for a user, and the texts name no key.
func TestAStrangerLearnsNothing(t *testing.T) {
	s := newStage(t)
	eve := s.caller(fsm.RoleUser, "eve", "e5")
	absent, forbidden := policy.Use(s.m.State(), eve, fsm.Key{}, false), policy.Use(s.m.State(), eve, labelled("ada"), true)
	if absent == nil || forbidden == nil || absent.Error() != forbidden.Error() {
		t.Errorf("absent: %v; forbidden: %v", absent, forbidden)
	}
}

// TestRevokingOneOfTwo: a serial is taken away alone, a name with all that it has.
func TestRevokingOneOfTwo(t *testing.T) {
	s := newStage(t)
	laptop, phone := s.caller(fsm.RoleUser, "ada", "a1"), s.caller(fsm.RoleUser, "ada", "b2")
	s.apply(requestID(), fsm.RevokeCertificates{Role: fsm.RoleUser, Name: "ada", Serial: "a1", Reason: "lost"})
	if err := policy.Identify(s.m.State(), laptop); !errors.Is(err, policy.ErrUnauthenticated) {
		t.Errorf("the lost one: %v", err)
	}
	if err := policy.Identify(s.m.State(), phone); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

func TestActor(t *testing.T) {
	c := policy.Caller{Cluster: "c1", Role: fsm.RoleUser, Name: "ada", Serial: "a1"}
	if got := c.Actor(); got != "spiffe://c1/user/ada" {
		t.Errorf("the log names %s", got)
	}
	b, err := json.Marshal(c) // between nodes: names are append-only
	if want := `{"cluster":"c1","role":"user","name":"ada","serial":"a1"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
