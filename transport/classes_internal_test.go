package transport

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
)

// TestClassRoundTrip: every control goes out and comes in; what the cluster says by itself is not taken from clients.
func TestClassRoundTrip(t *testing.T) {
	c := filled[vault.Class]()
	pb := classToPB(*c)
	for _, d := range descriptors(pb) {
		if !pb.ProtoReflect().Has(d) && d.Name() != "built_in" {
			t.Errorf("field %s is never filled", d.Name())
		}
	}
	back := classFromPB(pb)
	if !back.CreatedAt.IsZero() || back.Revision != 0 {
		t.Errorf("a client says when the class was made: %+v", back)
	}
	back.CreatedAt, back.Revision = c.CreatedAt, c.Revision
	if diff := cmp.Diff(c.Class, back); diff != "" {
		t.Error(diff)
	}
	if built := classToPB(vault.Class{}); !built.GetBuiltIn() || built.GetCreatedAt() != nil || built.GetRotateEvery() != nil || built.GetBudget() != nil {
		t.Errorf("a built-in class without controls: %v", built)
	}
}

func TestCheckToPB(t *testing.T) {
	got := checkToPB(*filled[fsm.ClassCheck]())
	var unset []string
	for _, d := range descriptors(got) {
		if !got.ProtoReflect().Has(d) {
			unset = append(unset, string(d.Name()))
		}
	}
	if !slices.Equal(unset, []string{"index"}) { // the handler's
		t.Errorf("never filled: %v", unset)
	}
	if got.GetBreaks()[0].GetKey() == got.GetFollows()[0].GetKey() {
		t.Error("breaks and follows are the same")
	}
}

func TestUpdateFromPB(t *testing.T) {
	at := time.Date(2027, 1, 2, 3, 4, 5, 6000, time.UTC)
	r := &vaultpb.UpdateKeyRequest{
		RequestId: "id", Name: "a/b", Revision: 3, SetLabels: []*vaultpb.Label{{Name: "env", Value: "prod"}}, RemoveLabels: []string{"team"},
		Description: proto.String("d"), Purpose: proto.String("p"), Owner: proto.String("user/bob"), AddLinks: []*vaultpb.Link{{Kind: "replaces", Target: "a"}},
		RemoveLinks: []*vaultpb.Link{{Kind: "certificate", Target: "1"}}, Version: 2, ActivateAt: timestamppb.New(at), DeactivateAt: timestamppb.New(at.Add(1)),
		ClearDeactivateAt: true, NeverExportable: true,
	}
	everyFieldIsSet(t, r) // a new field of the request needs a line here
	r.ClearDeactivateAt = false
	d, p, owner, later := "d", "p", fsm.Actor("user/bob"), at.Add(1)
	want := fsm.UpdateKey{
		Name: "a/b", Revision: 3, SetLabels: []fsm.Label{{Name: "env", Value: "prod"}}, RemoveLabels: []string{"team"}, Description: &d, Purpose: &p, Owner: &owner,
		AddLinks: []fsm.Link{{Kind: fsm.LinkReplaces, Target: "a"}}, RemoveLinks: []fsm.Link{{Kind: fsm.LinkCertificate, Target: "1"}}, Version: 2,
		ActivateAt: &at, DeactivateAt: &later, NeverExportable: true,
	}
	if diff := cmp.Diff(want, updateFromPB(r)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(fsm.UpdateKey{}, updateFromPB(&vaultpb.UpdateKeyRequest{})); diff != "" {
		t.Errorf("what is absent became something:\n%s", diff)
	}
	if u := updateFromPB(&vaultpb.UpdateKeyRequest{ClearDeactivateAt: true}); u.DeactivateAt == nil || !u.DeactivateAt.IsZero() {
		t.Errorf("clearing is %v", u.DeactivateAt)
	}
}
