package guard_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// exporting is a node whose guard exports, an exportable key "mac", and a recipient.
type exporting struct {
	*node
	private *ecdh.PrivateKey
	to      hsm.Recipient
	records int
	during  func() error // runs when the export is recorded
}

func newExporting(t *testing.T) *exporting {
	t.Helper()
	n := newNode(t)
	n.guard = guard.New(guard.Config{
		Keys: n.token, Lease: n.holder.Lease, State: n.state, ClusterID: func() string { return n.cluster },
		Unsealed: func(*fsm.State) error {
			if n.sealed.Load() {
				return hsm.ErrSealed
			}
			return nil
		},
		CatchUp: func(context.Context) error { return nil }, Uses: n.log,
	})
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	to, err := hsm.ParseRecipient(spki, hsm.FormECDH)
	if err != nil {
		t.Fatal(err)
	}
	x := &exporting{node: n, private: private, to: to}
	x.createExportable("mac", hsm.HMACSHA256)
	return x
}

func (x *exporting) createExportable(name fsm.KeyName, alg hsm.Algorithm) {
	x.t.Helper()
	id := uuid.NewString()
	w, err := x.token.Generate(context.Background(), hsm.Binding{ClusterID: x.cluster, KeyID: id, Version: 1, Algorithm: alg}, true)
	if err != nil {
		x.t.Fatal(err)
	}
	x.apply(fsm.CreateKey{ID: fsm.KeyID(id), Name: name, Algorithm: string(alg), Labels: []fsm.Label{{Name: "users", Value: "bob"}}, Material: fsm.Material{
		Generation: 1, Exportable: true, PublicKey: w.Binding.PublicKey, Blob: w.Blob, MAC: w.MAC,
	}})
}

func (x *exporting) export(c policy.Caller, name fsm.KeyName) ([]byte, error) {
	out, _, err := x.guard.Export(context.Background(), guard.Request{Caller: c, Name: name}, x.to, func(_ context.Context, sel guard.Selected) error {
		x.records++
		if x.during != nil {
			if err := x.during(); err != nil {
				return err
			}
		}
		x.apply(fsm.ExportKey{Name: sel.Key.Name, ID: sel.Key.ID, Version: sel.Version.Version, Form: string(x.to.Form()), Recipient: x.to.Fingerprint()})
		return nil
	})
	return out, err
}

// TestExport: what is released is the key: it makes the tags that the guard's copy makes.
func TestExport(t *testing.T) {
	x := newExporting(t)
	out, err := x.export(x.admin, "mac")
	want(t, err, nil)
	secret, err := keywrap.UnwrapECDH(x.private, out)
	want(t, err, nil)
	var tag []byte
	_, err = x.guard.Use(context.Background(), guard.Request{Caller: x.admin, Op: fsm.OpMAC, Name: "mac"}, func(ctx context.Context, k guard.Key, _ guard.Selected) (err error) {
		tag, err = k.MAC(ctx, hsm.BindingMessage(hsm.Binding{}, nil))
		return err
	})
	want(t, err, nil)
	if !bytes.Equal(tag, hsm.BindingMAC(secret, hsm.Binding{}, nil)) || x.records != 1 {
		t.Errorf("another key came out, recorded %d times", x.records)
	}
}

// TestExportRefusals: nothing is recorded, nor unwrapped, for who may not, or what may not leave.
func TestExportRefusals(t *testing.T) {
	x := newExporting(t)
	x.create("kept", hsm.HMACSHA256, "bob")
	x.createExportable("held", hsm.HMACSHA256)
	x.apply(fsm.ChangeKey{Name: "held", Action: fsm.ActionSuspend, Reason: "drill"})
	x.createExportable("never", hsm.HMACSHA256)
	x.apply(fsm.UpdateKey{Name: "never", NeverExportable: true})
	class, _ := x.machine.State().Class(fsm.ClassStandard)
	class.Name, class.Approvals = "board", []fsm.Approval{{Operation: "export", Quorum: 2}}
	x.apply(fsm.CreateClass{Class: class})
	x.createExportable("two", hsm.HMACSHA256)
	x.apply(fsm.SetKeyClass{Name: "two", Class: "board"})
	class.Name, class.Approvals, class.MFA = "careful", nil, true
	x.apply(fsm.CreateClass{Class: class})
	x.createExportable("factor", hsm.HMACSHA256)
	x.apply(fsm.SetKeyClass{Name: "factor", Class: "careful"})
	x.renew()
	bob, stranger := x.user("bob"), x.admin
	stranger.Serial = "ff"
	for what, c := range map[string]struct {
		who  policy.Caller
		name fsm.KeyName
		want error
	}{
		"a user of the key": {bob, "mac", policy.ErrDenied}, "a stranger": {stranger, "mac", policy.ErrUnauthenticated}, "no key": {x.admin, "none", guard.ErrNotFound},
		"not made so": {x.admin, "kept", guard.ErrKeyState}, "suspended": {x.admin, "held", guard.ErrKeyState}, "never": {x.admin, "never", guard.ErrKeyState},
		"approvals": {x.admin, "two", guard.ErrNeedsApproval}, "a second factor": {x.admin, "factor", policy.ErrDenied},
	} {
		if out, err := x.export(c.who, c.name); !errors.Is(err, c.want) || out != nil {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if x.records != 0 {
		t.Errorf("%d refused exports are recorded", x.records)
	}
}

// TestNothingLeavesWithoutItsRecord, and nothing that was forbidden while it was recorded, or after the lease.
func TestNothingLeavesWithoutItsRecord(t *testing.T) {
	lost := errors.New("no leader")
	for what, c := range map[string]struct {
		during func(*exporting) error
		want   error
	}{
		"no record": {func(*exporting) error { return lost }, lost},
		"suspended": {func(x *exporting) error {
			x.apply(fsm.ChangeKey{Name: "mac", Action: fsm.ActionSuspend, Reason: "r"})
			return errSpent
		}, guard.ErrKeyState},
		"never any more":  {func(x *exporting) error { x.apply(fsm.UpdateKey{Name: "mac", NeverExportable: true}); return errSpent }, guard.ErrKeyState},
		"sealed":          {func(x *exporting) error { x.sealed.Store(true); return nil }, hsm.ErrSealed},
		"the lease ended": {func(x *exporting) error { x.clock.advance(lease.Default().D); return nil }, guard.ErrNoLease},
	} {
		x := newExporting(t)
		x.during = func() error { return c.during(x) }
		if out, err := x.export(x.admin, "mac"); !errors.Is(err, c.want) || out != nil {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// TestASuspensionAfterTheRecordHoldsBack: the second check is on a state that is newer than the record.
func TestASuspensionAfterTheRecordHoldsBack(t *testing.T) {
	x := newExporting(t)
	_, _, err := x.guard.Export(context.Background(), guard.Request{Caller: x.admin, Name: "mac"}, x.to, func(_ context.Context, sel guard.Selected) error {
		if x.records++; x.records == 1 {
			x.apply(fsm.ExportKey{Name: "mac", ID: sel.Key.ID, Version: 1, Form: "f", Recipient: x.to.Fingerprint()})
			x.apply(fsm.ChangeKey{Name: "mac", Action: fsm.ActionSuspend, Reason: "r"})
		}
		return nil
	})
	want(t, err, guard.ErrKeyState)
}

// TestATokenThatCannotExport says so, and records nothing.
func TestATokenThatCannotExport(t *testing.T) {
	n := newNode(t) // its port is wrapped, and exports nothing
	_, _, err := n.guard.Export(context.Background(), guard.Request{Caller: n.admin, Name: "mac"}, hsm.Recipient{}, func(context.Context, guard.Selected) error {
		t.Error("it is recorded")
		return nil
	})
	if !errors.Is(err, hsm.ErrUnsupported) || n.guard.CanExport() {
		t.Error(err)
	}
}

// TestAnExportCountsAsAUse: a budget bounds a thief of credentials here, too.
func TestAnExportCountsAsAUse(t *testing.T) {
	x := newExporting(t)
	c := x.node.counting(t)
	x.node.guard = guard.New(guard.Config{
		Keys: x.token, Lease: x.holder.Lease, State: x.machine.State, ClusterID: func() string { return x.cluster },
		Unsealed: func(*fsm.State) error { return nil }, CatchUp: func(context.Context) error { return nil }, Uses: x.log,
		Node: "n1", Boot: "boot", Reserve: c.reserve, Background: func(func(context.Context)) bool { return false },
	})
	c.limit(fsm.UseLimit{Amount: fsm.Amount{Operations: 2}, Per: time.Hour})
	for i := range 3 {
		_, err := x.export(x.admin, "mac")
		if spent := errors.Is(err, errSpent); spent != (i == 2) || err != nil && !spent {
			t.Errorf("export %d: %v", i+1, err)
		}
	}
}
