package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/policy"
)

// TestARequestThroughTwoNodesAtOnceIsOne: a client that fails over may have both of its tries arrive. Each node wraps a key of its
// own; one of them is the key, and both answers say which.
func TestARequestThroughTwoNodesAtOnceIsOne(t *testing.T) {
	inWorld(t, func(w *world) {
		w.unsealed(3)
		for i := range 50 {
			id, name := request(), fsm.KeyName(fmt.Sprintf("key-%d", i))
			var keys [2]fsm.Key
			var both sync.WaitGroup
			for n, entry := range []fsm.NodeID{"n2", "n3"} {
				both.Go(func() {
					var err error
					keys[n], _, err = w.node(entry).vault.CreateKey(w.ctx(), w.admin, id, vault.NewKey{Name: name, Algorithm: hsm.Ed25519})
					if err != nil {
						t.Errorf("%s through %s: %v", name, entry, err)
					}
				})
			}
			both.Wait()
			if keys[0].ID != keys[1].ID || len(keys[0].Versions) != 1 {
				t.Errorf("%s was answered as %s and as %s", name, keys[0].ID, keys[1].ID)
			}
		}
		if got := len(w.logged(w.node("n1"), "key.create", "")); got != 50 {
			t.Errorf("%d keys were made by 50 requests", got)
		}
	})
}

// TestARequestIDIsForOneRequest: also through another node, and for another method.
func TestARequestIDIsForOneRequest(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		id := request()
		_, _, err := first.vault.CreateKey(w.ctx(), w.admin, id, vault.NewKey{Name: "a", Algorithm: hsm.Ed25519})
		w.must(err)
		var refused *vault.Refused
		if _, _, err := w.node("n2").vault.CreateKey(w.ctx(), w.admin, id, vault.NewKey{Name: "b", Algorithm: hsm.Ed25519}); !errors.As(err, &refused) || refused.Code != fsm.CodeRequestReused {
			t.Errorf("for another key: %v", err)
		}
		if _, err := w.change(w.ctx(), w.node("n3"), id, "a", fsm.ActionSuspend); !errors.As(err, &refused) || refused.Code != fsm.CodeRequestReused {
			t.Errorf("for another method: %v", err)
		}
		if !w.signs(w.node("n2"), "a") {
			t.Error("the refused request did something")
		}
	})
}

// TestWritesSurviveTheirLeaders: writers on every node go on while one leader after another is killed. Whatever was acknowledged
// is there, once, and what was not becomes it when asked again with its id.
func TestWritesSurviveTheirLeaders(t *testing.T) {
	inWorld(t, func(w *world) {
		w.persistent = true // whoever comes back goes on making keys without custodians
		w.unsealed(3)
		const each = 40
		var writers sync.WaitGroup
		for _, id := range w.ids() {
			writers.Go(func() {
				for i := range each {
					w.persist(id, fsm.KeyName(fmt.Sprintf("%s-%d", id, i)))
					time.Sleep(200 * time.Millisecond) // of the bubble's clock
				}
			})
		}
		for range 3 {
			time.Sleep(1500 * time.Millisecond) // of the bubble's clock
			leader := w.leader()
			w.kill(leader.id)
			w.leader()
			w.restart(leader.id)
		}
		writers.Wait()
		leader := w.leader()
		for _, id := range w.ids() {
			for i := range each {
				name := fmt.Sprintf("%s-%d", id, i)
				if got := w.logged(leader, "key.create", "key/"+name); len(got) != 1 {
					t.Errorf("%s was made %d times", name, len(got))
				}
			}
		}
	})
}

// persist makes a key through a node, or through its next life, with one request id until it is acknowledged.
func (w *world) persist(through fsm.NodeID, name fsm.KeyName) {
	id := request()
	for range 200 {
		err := w.node(through).use(func(v *vault.Vault) error {
			ctx, cancel := context.WithTimeout(w.ctx(), 5*time.Second)
			defer cancel()
			_, _, err := v.CreateKey(ctx, w.admin, id, vault.NewKey{Name: name, Algorithm: hsm.Ed25519})
			return err
		})
		if err == nil {
			return
		}
		if refused, is := errors.AsType[*vault.Refused](err); is {
			w.t.Errorf("%s: %v", name, refused)
			return
		}
		time.Sleep(100 * time.Millisecond) // of the bubble's clock
	}
	w.t.Errorf("%s was never acknowledged", name)
}

// TestARevokedAdministratorWritesNothing: neither through nodes that know it, nor through one that does not yet: the leader
// authorises again.
func TestARevokedAdministratorWritesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		first := w.unsealed(3)
		deputy := w.employ(first, fsm.RoleAdministrator, "deputy")
		leader := w.leader()
		entry := w.followers()[0]
		_, _, err := entry.vault.CreateKey(w.ctx(), deputy, request(), vault.NewKey{Name: "before", Algorithm: hsm.Ed25519})
		w.must(err)
		_, err = first.vault.RevokeCertificates(w.ctx(), w.admin, request(), fsm.RevokeCertificates{Role: fsm.RoleAdministrator, Name: "deputy", Reason: "left"})
		w.must(err)
		for _, p := range w.live() {
			_, _, err := p.vault.CreateKey(w.ctx(), deputy, request(), vault.NewKey{Name: "after", Algorithm: hsm.Ed25519})
			if !errors.Is(err, policy.ErrUnauthenticated) {
				t.Errorf("through %s: %v", p.id, err)
			}
		}
		if fault := w.propose(entry, deputy); fault != "unauthenticated" {
			t.Errorf("%s, which did not check, was answered %q by %s", entry.id, fault, leader.id)
		}
		if got := w.events(leader, func(e fsm.Event) bool { return e.Actor == deputy.Actor() && e.Subject != "key/before" }); len(got) > 0 {
			t.Errorf("the deputy did %+v", got)
		}
	})
}

// propose hands an entry to the leader as a node does that knows of no revocation, and returns the name of the fault.
func (w *world) propose(entry *process, c policy.Caller) string {
	w.t.Helper()
	data, err := fsm.EncodeEntry(fsm.Entry{
		Command: fsm.SealCluster{Reason: "revenge"}, Actor: c.Actor(), Credential: c.Serial, RequestID: request(), RequestHash: [32]byte{1},
	})
	w.must(err)
	payload, err := json.Marshal(map[string]any{"entry": data, "caller": c})
	w.must(err)
	raw, err := entry.cluster.CallLeader(w.ctx(), "propose", payload)
	w.must(err)
	var answer struct {
		Fault struct {
			Name string `json:"name"`
		} `json:"fault"`
	}
	w.must(json.Unmarshal(raw, &answer))
	return answer.Fault.Name
}
