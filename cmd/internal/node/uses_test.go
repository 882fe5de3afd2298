package node

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
	"github.com/conclave-vault/conclave/vault/usage"
)

// durableClass makes a class like standard, whose records are on the disk before the answer.
func (w *world) durableClass(p *process, name string) {
	w.t.Helper()
	class, _ := p.replica.State().Class(fsm.ClassStandard)
	class.Name, class.UsageLog, class.Revision = name, fsm.UsageDurable, 0
	_, _, err := p.vault.CreateClass(w.ctx(), w.admin, request(), class)
	w.must(err)
}

// listUses reads a node's usage log through another node, page by page, as operations of request ids.
func (w *world) listUses(p *process, f vault.UseFilter) (all []string) {
	w.t.Helper()
	for token := ""; ; {
		page, err := p.vault.ListUses(w.ctx(), w.admin, f, token, 2)
		w.must(err)
		for _, u := range page.Uses {
			all = append(all, u.Operation+" "+u.RequestID)
		}
		if token = page.Next; token == "" {
			return all
		}
	}
}

// TestUsesAreListedFromAnyNode: each node's own, across its restarts, for administrators alone.
func TestUsesAreListedFromAnyNode(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true
		first := w.unsealed(3)
		w.durableClass(first, "dear")
		for _, name := range []fsm.KeyName{"a", "b"} {
			_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: name, Class: "dear", Algorithm: hsm.Ed25519})
			w.must(err)
		}
		sign := func(p *process, name fsm.KeyName, id string) {
			t.Helper()
			_, err := p.vault.Sign(usage.WithRequest(w.ctx(), id), w.admin, name, message(1))
			w.must(err)
		}
		for i := range 3 {
			sign(first, "a", fmt.Sprintf("r%d", i))
		}
		sign(first, "b", "r3")
		w.stop(first.id)
		first = w.start(first.id)
		w.serving(3)
		w.within(waitTime, "it signs again", func() bool { return !first.sealed() && w.signs(first, "b") })
		sign(first, "a", "r4")
		other := w.node("n2")
		sign(other, "a", "elsewhere")
		want := func(p *process, f vault.UseFilter, want ...string) {
			t.Helper()
			if got := w.listUses(p, f); !slices.Equal(got, want) {
				t.Errorf("%+v: %q, want %q", f, got, want)
			}
		}
		want(other, vault.UseFilter{}, "sign elsewhere")
		want(first, vault.UseFilter{Node: "n2"}, "sign elsewhere")
		want(other, vault.UseFilter{Node: first.id, Key: "a"}, "sign r0", "sign r1", "sign r2", "sign r4")
		want(other, vault.UseFilter{Node: first.id, Since: w.usesOf(first.id)[3].Time, Key: "b"}, "sign r3", "sign ")
		w.refusesToList(other)
	})
}

// refusesToList tries what nobody may read, and what is not there.
func (w *world) refusesToList(p *process) {
	w.t.Helper()
	bob := w.employ(p, fsm.RoleUser, "bob")
	for _, c := range []struct {
		who   policy.Caller
		f     vault.UseFilter
		token string
		limit int
		want  error
	}{
		{who: bob, want: policy.ErrDenied}, {who: w.admin, f: vault.UseFilter{Node: "n9"}, want: guard.ErrNotFound}, {who: w.admin, f: vault.UseFilter{Key: "none"}, want: guard.ErrNotFound},
		{who: w.admin, token: "x", want: vault.ErrInvalid}, {who: w.admin, limit: 1001, want: vault.ErrInvalid}, {who: w.admin, limit: -1, want: vault.ErrInvalid},
	} {
		if _, err := p.vault.ListUses(w.ctx(), c.who, c.f, c.token, c.limit); !errors.Is(err, c.want) {
			w.t.Errorf("%+v: %v", c, err)
		}
	}
}
