package transport_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// TestClassesOverTheWire goes once through every call about classes.
func TestClassesOverTheWire(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	c, ctx := vaultpb.NewClassesClient(conn), t.Context()
	id := func() string { return uuid.Must(uuid.NewV7()).String() }

	all, err := c.ListClasses(ctx, &vaultpb.ListClassesRequest{})
	must(t, err)
	if len(all.GetItems()) != 4 || all.GetItems()[0].GetName() != fsm.ClassPublicTrust || !all.GetItems()[0].GetBuiltIn() {
		t.Errorf("a new cluster has %v", all.GetItems())
	}
	class := all.GetItems()[2]
	class.Name, class.RotateEvery = "cards", durationpb.New(24*time.Hour)
	made, err := c.CreateClass(ctx, &vaultpb.CreateClassRequest{RequestId: id(), Class: class})
	must(t, err)
	if got := made.GetClass(); got.GetBuiltIn() || got.GetRevision() == 0 || got.GetRotateEvery().AsDuration() != 24*time.Hour {
		t.Errorf("made %v", got)
	}
	raised := made.GetClass()
	raised.MinDestroyWait = durationpb.New(240 * time.Hour)
	check, err := c.CheckClass(ctx, &vaultpb.CheckClassRequest{Class: raised})
	must(t, err)
	if got := check.GetRaised(); len(got) != 1 || got[0] != "min_destroy_wait" || len(check.GetLowered()) != 0 {
		t.Errorf("checked: %v", check)
	}
	raised.MinDestroyWait, raised.Description = class.GetMinDestroyWait(), "card numbers" // words restrict nothing, and nobody completes barriers here
	now, err := c.UpdateClass(ctx, &vaultpb.UpdateClassRequest{RequestId: id(), Class: raised, Revision: raised.GetRevision()})
	must(t, err)
	if now.GetClass().GetDescription() != "card numbers" {
		t.Errorf("updated %v", now)
	}
	raised.MinDestroyWait = durationpb.New(24 * time.Hour)
	if _, err := c.UpdateClass(ctx, &vaultpb.UpdateClassRequest{RequestId: id(), Class: raised}); kind.Of(kind.Received(err)) != kind.NeedsApproval {
		t.Errorf("lowered: %v", err)
	}
	raised.Algorithms = []string{"rot13"}
	for what, err := range map[string]error{
		"update": last(c.UpdateClass(ctx, &vaultpb.UpdateClassRequest{RequestId: id(), Class: raised})),
		"create": last(c.CreateClass(ctx, &vaultpb.CreateClassRequest{RequestId: id(), Class: &vaultpb.Class{Name: "x"}})),
		"check":  last(c.CheckClass(ctx, &vaultpb.CheckClassRequest{Class: &vaultpb.Class{Name: "X"}})),
	} {
		if kind.Of(kind.Received(err)) != kind.InvalidArgument {
			t.Errorf("%s of nonsense: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"get":          last(c.GetClass(ctx, &vaultpb.GetClassRequest{Name: "gold"})),
		"delete":       last(c.DeleteClass(ctx, &vaultpb.DeleteClassRequest{RequestId: id(), Name: "gold"})),
		"check of key": last(c.CheckClass(ctx, &vaultpb.CheckClassRequest{Key: "k", Class: &vaultpb.Class{Name: "low"}})),
	} {
		if kind.Of(kind.Received(err)) != kind.NotFound {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	if _, err := c.DeleteClass(ctx, &vaultpb.DeleteClassRequest{RequestId: id(), Name: "cards"}); err != nil {
		t.Error(err)
	}
}

func last[R any](_ R, err error) error { return err }

// TestUsersReadClassesAndChangeNone.
func TestUsersReadClassesAndChangeNone(t *testing.T) {
	s := newSolo(t)
	cert := s.issue(s.clients, s.named("user", "bob"), time.Hour, time.Now())
	s.record(cert.Leaf, fsm.RoleUser, "bob")
	conn := s.dial(cert)
	defer conn.Close()
	c, keys, ctx, id := vaultpb.NewClassesClient(conn), vaultpb.NewKeysClient(conn), t.Context(), uuid.Must(uuid.NewV7()).String()
	if got, err := c.GetClass(ctx, &vaultpb.GetClassRequest{Name: "standard"}); err != nil || got.GetClass().GetLease() != "leased" {
		t.Errorf("%v, %v", got, err)
	}
	for what, err := range map[string]error{
		"create":    last(c.CreateClass(ctx, &vaultpb.CreateClassRequest{RequestId: id, Class: &vaultpb.Class{Name: "x"}})),
		"update":    last(c.UpdateClass(ctx, &vaultpb.UpdateClassRequest{RequestId: id, Class: &vaultpb.Class{Name: "x"}})),
		"delete":    last(c.DeleteClass(ctx, &vaultpb.DeleteClassRequest{RequestId: id, Name: "x"})),
		"check":     last(c.CheckClass(ctx, &vaultpb.CheckClassRequest{Class: &vaultpb.Class{Name: "low"}})),
		"set-class": last(keys.SetKeyClass(ctx, &vaultpb.SetKeyClassRequest{RequestId: id, Name: "k", Class: "low"})),
		"key":       last(keys.UpdateKey(ctx, &vaultpb.UpdateKeyRequest{RequestId: id, Name: "k", ActivateAt: timestamppb.Now()})),
	} {
		if kind.Of(kind.Received(err)) != kind.Denied {
			t.Errorf("%s by a user: %v", what, err)
		}
	}
}

// TestWatchOverTheWire: a node that waits for its unseal has the leader vouch for what a reader may see; strangers and nonsense are refused.
func TestWatchOverTheWire(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	stream, err := vaultpb.NewLogClient(conn).Watch(t.Context(), &vaultpb.WatchRequest{FromNow: true})
	must(t, err)
	if first, err := stream.Recv(); err != nil || first.GetNextLeaf() == 0 {
		t.Errorf("%v, %v", first, err)
	}
	wrong, err := vaultpb.NewLogClient(conn).Watch(t.Context(), &vaultpb.WatchRequest{FromLeaf: 1 << 40})
	must(t, err)
	if _, err := wrong.Recv(); kind.Of(kind.Received(err)) != kind.InvalidArgument {
		t.Errorf("from the future: %v", err)
	}
	stranger := s.dial(s.issue(s.clients, s.named("user", "eve"), time.Hour, time.Now()))
	defer stranger.Close()
	strange, err := vaultpb.NewLogClient(stranger).Watch(t.Context(), &vaultpb.WatchRequest{})
	must(t, err)
	if _, err := strange.Recv(); kind.Of(kind.Received(err)) != kind.Unauthenticated {
		t.Errorf("a stranger watches: %v", err)
	}
}

// TestListKeysRefusesNonsense: a misspelt state is not an empty list.
func TestListKeysRefusesNonsense(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.ada())
	defer conn.Close()
	c := vaultpb.NewKeysClient(conn)
	for what, q := range map[string]*vaultpb.ListKeysRequest{"state": {States: []string{"actve"}}, "labels": {Labels: make([]string, 1000)}} {
		if _, err := c.ListKeys(t.Context(), q); kind.Of(kind.Received(err)) != kind.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	full := &vaultpb.ListKeysRequest{States: []string{"active"}, Classes: []string{"low"}, Algorithms: []string{"ed25519"}, Labels: []string{"a=b"}, Prefix: "p"}
	if got, err := c.ListKeys(t.Context(), full); err != nil || len(got.GetItems()) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
