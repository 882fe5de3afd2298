package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// names is the wire format, written out: nodes of two versions talk, so a name never changes and is never used again.
var names = map[string]error{
	"invalid": ErrInvalid, "not-leader": ErrNotLeader, "outcome-unknown": ErrOutcomeUnknown, "unavailable": ErrUnavailable,
	"ceremony": ErrCeremony, "no-ceremony": ErrNoCeremony, "share": ErrShare, "uninitialised": ErrUninitialised, "sealed": hsm.ErrSealed,
	"unauthenticated": policy.ErrUnauthenticated, "denied": policy.ErrDenied, "not-found": guard.ErrNotFound, "token": ErrToken, "clock": ErrClock,
	"deadline": context.DeadlineExceeded, "canceled": context.Canceled,
	"input": hsm.ErrInput, "unsupported": hsm.ErrUnsupported, "key-state": guard.ErrKeyState, "needs-approval": guard.ErrNeedsApproval,
	"no-lease": guard.ErrNoLease, "fenced": guard.ErrFenced, "cannot-ask": guard.ErrUnavailable,
}

// sent is err as the node that asked gets it.
func sent(t *testing.T, err error) error {
	t.Helper()
	_, got := ask[string](func() ([]byte, error) {
		return serve([]byte(`{}`), func(struct{}) (string, error) { return "an answer", err })
	})
	return got
}

func TestNamedErrorsKeepTheirMeaningBetweenNodes(t *testing.T) {
	if len(named) != len(names) {
		t.Errorf("%d errors have names, this test knows %d", len(named), len(names))
	}
	for name, sentinel := range names {
		t.Run(name, func(t *testing.T) {
			err := fmt.Errorf("node n2: %w: because", sentinel)
			if f := toFault(err); f.Name != name || f.Message != err.Error() {
				t.Errorf("on the wire it is %+v", f)
			}
			got := sent(t, err)
			if got == nil || got.Error() != err.Error() {
				t.Errorf("the text became %v", got)
			}
			for other, target := range names {
				if is := errors.Is(got, target); is != (other == name) {
					t.Errorf("it is %q: %v", target, is)
				}
			}
		})
	}
}

func TestARefusalCrossesNodes(t *testing.T) {
	for code := fsm.CodeInvalid; code <= fsm.CodeUnsupported; code++ {
		want := &Refused{Code: code, Message: "key \"a\" is \u00e4 <b>"}
		var got *Refused
		if err := sent(t, fmt.Errorf("reporting: %w", want)); !errors.As(err, &got) || *got != *want {
			t.Errorf("%v became %v", want, err)
		}
	}
}

func TestAPendingBarrierCrossesNodes(t *testing.T) {
	want := &PendingError{Index: 1 << 60, Pending: []fsm.NodeID{"n2", "n3"}}
	var got *PendingError
	if err := sent(t, fmt.Errorf("waiting: %w", want)); !errors.As(err, &got) {
		t.Fatalf("it became %v", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestAnUnnamedErrorIsNoOther: what has no name must not gain a meaning on the way; nor what a newer node names.
func TestAnUnnamedErrorIsNoOther(t *testing.T) {
	newer, err := json.Marshal(answer{Fault: &fault{Name: "melted", Message: "of the future"}})
	if err != nil {
		t.Fatal(err)
	}
	_, future := ask[string](func() ([]byte, error) { return newer, nil })
	for _, got := range []error{sent(t, errors.New("disk on fire")), sent(t, guard.ErrWrongKey), future} {
		if got == nil || !strings.HasPrefix(got.Error(), "another node failed: ") {
			t.Errorf("it became %v", got)
		}
		for name, target := range names {
			if errors.Is(got, target) {
				t.Errorf("%v is %s", got, name)
			}
		}
	}
}

func TestAnAnswerCrossesNodes(t *testing.T) {
	type body struct {
		Data []byte
		N    uint64
	}
	want := body{[]byte{0, 255}, 1<<64 - 1}
	got, err := ask[body](func() ([]byte, error) { return serve([]byte(`{}`), func(struct{}) (body, error) { return want, nil }) })
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// TestWhatIsNoAnswerIsAnError: whatever a node sends back, it is an answer of the right form or an error.
func TestWhatIsNoAnswerIsAnError(t *testing.T) {
	for _, raw := range []string{"", "null", "{}", "[]", `{"body":"text"}`, `{"body":7`, "\xff"} {
		got, err := ask[struct{ N int }](func() ([]byte, error) { return []byte(raw), nil })
		if err == nil {
			t.Errorf("%q was read as %+v", raw, got)
		}
	}
	down := errors.New("down")
	if _, err := ask[int](func() ([]byte, error) { return nil, down }); !errors.Is(err, down) {
		t.Errorf("a call that failed: %v", err)
	}
}

func TestAMalformedQuestionIsAFault(t *testing.T) {
	for _, raw := range []string{"", "{", `{"n":"seven"}`} {
		_, err := ask[int](func() ([]byte, error) {
			return serve([]byte(raw), func(struct {
				N int `json:"n"`
			}) (int, error) {
				t.Errorf("%q was handled", raw)
				return 0, nil
			})
		})
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestRefusedIsNilWhenOK(t *testing.T) {
	if err := refused(fsm.Result{Code: fsm.CodeOK, Index: 7}); err != nil {
		t.Errorf("%v", err)
	}
	var got *Refused
	if err := refused(fsm.Result{Code: fsm.CodeState, Message: "why"}); !errors.As(err, &got) || got.Code != fsm.CodeState || err.Error() != "why" {
		t.Errorf("%v", err)
	}
}
