package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault"
)

// TestTranslate: what the consensus says, in the words on which vault decides whether to try again.
func TestTranslate(t *testing.T) {
	meanings := []error{vault.ErrNotLeader, vault.ErrOutcomeUnknown, vault.ErrUnavailable}
	for _, c := range []struct{ err, want error }{
		{cluster.ErrNotLeader, vault.ErrNotLeader},
		{cluster.ErrOutcomeUnknown, vault.ErrOutcomeUnknown},
		{errors.Join(cluster.ErrUnreachable, cluster.ErrOutcomeUnknown), vault.ErrOutcomeUnknown}, // it had been sent
		{cluster.ErrNoLeader, vault.ErrUnavailable},
		{cluster.ErrUnreachable, vault.ErrUnavailable},
		{cluster.ErrUnknownNode, vault.ErrUnavailable},
		{cluster.ErrStopped, vault.ErrUnavailable},
		{cluster.ErrNotMember, vault.ErrUnavailable},
		{cluster.ErrBusy, vault.ErrUnavailable}, // nothing was done: another try, or another moment
		{cluster.ErrTooLarge, nil},
		{cluster.ErrPeer, nil},
		{cluster.ErrConfig, nil},
		{context.DeadlineExceeded, nil},
		{&cluster.RemoteError{Message: "no"}, nil},
	} {
		wrapped := fmt.Errorf("asking n2: %w", c.err)
		got := translate(wrapped)
		if !errors.Is(got, c.err) {
			t.Errorf("%v lost its cause: %v", c.err, got)
		}
		for _, m := range meanings {
			if is := errors.Is(got, m); is != (m == c.want) {
				t.Errorf("%v is %v: %v", c.err, m, is)
			}
		}
	}
	if translate(nil) != nil {
		t.Error("no error became one")
	}
}

func TestTranslatePending(t *testing.T) {
	var got *vault.PendingError
	err := translate(fmt.Errorf("waiting: %w", &cluster.PendingError{Index: 7, Pending: []cluster.NodeID{"n2", "n3"}, Cause: context.DeadlineExceeded}))
	if !errors.As(err, &got) {
		t.Fatalf("it became %v", err)
	}
	if diff := cmp.Diff(&vault.PendingError{Index: 7, Pending: []fsm.NodeID{"n2", "n3"}}, got); diff != "" {
		t.Error(diff)
	}
}
