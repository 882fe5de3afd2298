package compose_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// Bounds. serveWithin is for an election and for what two cores need meanwhile; quiet is how long a node that was cut off is watched
// after its lease has ended.
const (
	serveWithin = 20 * time.Second
	quiet       = 2 * time.Second
)

// TestContainers is the life of a cluster in containers, as the README tells it.
func TestContainers(t *testing.T) {
	c := begin(t)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"bring up", c.broughtUp},
		{"genesis, unseal, sign", c.opened},
		{"image and containers", func(t *testing.T) {
			c.fromScratch(t)
			for _, n := range nodes {
				c.confined(t, n)
			}
		}},
		{"a node is cut off and rejoins", c.cutOff},
		{"the leader is killed", c.leaderKilled},
		{"all restart", c.allRestart},
		{"secrets", c.keepsSecrets},
	} {
		began := time.Now()
		step.do(t)
		t.Logf("%s: %.1f s", step.name, time.Since(began).Seconds())
		if t.Failed() {
			return
		}
	}
}

// broughtUp: all nodes run, healthy though sealed, and nobody gets a signature.
func (c *containers) broughtUp(t *testing.T) {
	c.ok(t, c.bringUp)
	c.healthy(t, nodes...)
	for _, n := range nodes {
		c.health(t, n, "unsealed", kind.ExitSealed)
		c.health(t, n, "serving", kind.ExitSealed)
	}
}

// opened: the README's commands, which end with a signature from every node and its verification.
func (c *containers) opened(t *testing.T) {
	c.ok(t, c.ceremonies)
	c.signsEverywhere(t)
	for _, n := range nodes {
		c.health(t, n, "serving", kind.ExitOK)
	}
}

// signsEverywhere has each node sign, with the program and with a client that knows this one address.
func (c *containers) signsEverywhere(t *testing.T) {
	t.Helper()
	for _, n := range nodes {
		if got := c.ok(t, "echo hello | conclave sign "+paymentKey+" --addr "+c.api[n]+" --field node"); got != n+"\n" {
			t.Errorf("%s was asked for a signature and %q gave it", n, got)
		}
		sign := signing(t, c.at(t, n), n, paymentKey)
		eventually(t, serveWithin, n+" signs", func() error { return bounded(t, 2*time.Second, sign) })
	}
}

func bounded(t *testing.T, limit time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return call(ctx)
}

// listens demands which ports of an address answer.
func (c *containers) listens(t *testing.T, ip string, ports map[string]bool) {
	t.Helper()
	for port, want := range ports {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(ip, port), time.Second)
		if (err == nil) != want {
			t.Errorf("port %s of %s answers: %t, %v", port, ip, err == nil, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// cutOff takes a node that does not lead off the wan. It stops signing within D; the others never pause; a key that is suspended
// meanwhile is not used by it again; and back on the wan it signs without a ceremony.
func (c *containers) cutOff(t *testing.T) {
	lost := "n3"
	if c.leader(t, nodes...) == lost {
		lost = "n2"
	}
	rest := others(lost)
	patient := c.at(t, rest...)
	if _, err := patient.CreateKey(t.Context(), &vaultpb.CreateKeyRequest{Name: "doomed", Algorithm: "ecdsa-p256"}); err != nil {
		t.Fatal(err)
	}
	apart := c.at(t, lost)
	onLost := probing(t, lost+" signs", probeEvery, 300*time.Millisecond, signing(t, apart, lost, paymentKey))
	doomed := probing(t, lost+" signs with the doomed key", probeEvery, 300*time.Millisecond, signing(t, apart, lost, "doomed"))
	var going []*probe
	for _, n := range rest {
		going = append(going, probing(t, n+" signs", probeEvery, 3*time.Second, signing(t, c.at(t, n), n, paymentKey)))
	}
	writes := probing(t, "writing", writeEvery, 3*time.Second, writing(patient, "while-cut"))
	for _, p := range append(going, onLost, doomed, writes) {
		p.succeeds(t, time.Time{}, serveWithin)
	}

	began := time.Now()
	c.ok(t, c.drill(t, "cut", lost))
	cut := time.Now()
	suspend := &vaultpb.ChangeKeyRequest{Name: "doomed", Action: vaultpb.KeyAction_KEY_ACTION_SUSPEND, Reason: "test"}
	if _, err := patient.ChangeKey(t.Context(), suspend); err != nil {
		t.Fatalf("suspending a key while %s is away: %v", lost, err)
	}
	suspended := time.Now()
	d := lease.Default().D
	eventually(t, d+2*quiet, lost+" was watched for long enough", func() error {
		if since := time.Since(cut); since < d+quiet {
			return fmt.Errorf("only %s", since)
		}
		return nil
	})
	c.stopped(t, lost, onLost, began, cut, d)
	for _, a := range doomed.attempts() {
		if a.err == nil && a.began.After(suspended) {
			t.Errorf("%s used a key %s after its suspension was acknowledged", lost, a.began.Sub(suspended))
		}
	}
	t.Logf("the suspension was acknowledged %.2f s after the cut", suspended.Sub(cut).Seconds())
	for _, p := range going {
		p.unbroken(t, began, 100)
	}
	writes.unbroken(t, began, 10)
	c.healthy(t, lost) // no reason to restart it
	c.health(t, lost, "unsealed", kind.ExitOK)
	c.health(t, lost, "serving", kind.ExitUnavailable)

	c.ok(t, c.drill(t, "rejoin", lost))
	t.Logf("%s signs again %.2f s after it rejoined", lost, onLost.succeeds(t, time.Now(), serveWithin).Seconds())
	for _, p := range append(going, onLost, doomed, writes) {
		p.end()
	}
	c.health(t, lost, "serving", kind.ExitOK)
}

// stopped demands that the last signature came within d of the cut, which was complete when the command returned.
func (c *containers) stopped(t *testing.T, lost string, p *probe, began, cut time.Time, d time.Duration) {
	t.Helper()
	last, ok := p.last()
	if !ok || last.ended.Before(began) {
		t.Fatalf("%s had not signed before the cut", lost)
	}
	t.Logf("%s gave its last signature %.2f s after the cut, %.2f s after the command began; D is %s",
		lost, last.ended.Sub(cut).Seconds(), last.ended.Sub(began).Seconds(), d)
	if last.ended.After(cut.Add(d)) {
		t.Errorf("%s signed %s after it was cut off, and D is %s", lost, last.ended.Sub(cut), d)
	}
	refused := 0
	for _, a := range p.attempts() {
		if a.began.After(last.ended) && a.err != nil {
			refused++
		}
	}
	if refused < 3 {
		t.Errorf("%s was asked %d times after its last signature: that says nothing", lost, refused)
	}
}

// leaderKilled: the others elect, sign and write; the one that was killed comes back sealed, and two custodians unseal it.
func (c *containers) leaderKilled(t *testing.T) {
	leader := c.leader(t, nodes...)
	rest := others(leader)
	var going []*probe
	for _, n := range rest {
		going = append(going, probing(t, n+" signs", probeEvery, 2*time.Second, signing(t, c.at(t, n), n, paymentKey)))
	}
	writes := probing(t, "writing", writeEvery, 2*time.Second, writing(c.at(t, rest...), "after-the-leader"))
	for _, p := range append(going, writes) {
		p.succeeds(t, time.Time{}, serveWithin)
	}
	c.ok(t, c.drill(t, "kill", leader))
	killed := time.Now()
	if c.container(t, leader).State.Running {
		t.Fatalf("%s still runs", leader)
	}
	for _, p := range append(going, writes) {
		t.Logf("%s %.2f s after the leader was killed", p.name, p.succeeds(t, killed, serveWithin).Seconds())
	}
	if next := c.leader(t, rest...); next == leader {
		t.Errorf("%s leads, and is dead", next)
	}
	for _, p := range append(going, writes) {
		p.end()
	}

	c.ok(t, c.drill(t, "start", leader))
	c.healthy(t, leader)
	c.sealedButThere(t, leader)
	c.unseal(t, leader, "bob", "carol")
	c.signsEverywhere(t)
}

// sealedButThere: a node that started again takes part and gives no signature.
func (c *containers) sealedButThere(t *testing.T, which ...string) {
	t.Helper()
	api := c.at(t, nodes...)
	for _, n := range which {
		c.health(t, n, "unsealed", kind.ExitSealed)
		c.exits(t, kind.ExitSealed, "echo hello | conclave sign "+paymentKey+" --addr "+c.api[n])
	}
	eventually(t, serveWithin, strings.Join(which, ", ")+" take part", func() error {
		s, err := c.status(t.Context(), api)
		if err != nil {
			return err
		}
		var errs []error
		for _, n := range s.GetNodes() {
			if n.GetRole() != "leader" && n.GetRole() != "follower" {
				errs = append(errs, fmt.Errorf("%s: %s %s", n.GetId(), n.GetRole(), n.GetError()))
			}
		}
		return errors.Join(errs...)
	})
}

// unseal gives two custodians' shares to a node, with the README's command.
func (c *containers) unseal(t *testing.T, node string, names ...string) {
	t.Helper()
	for _, name := range names {
		c.ok(t, "conclave ceremony unseal --identity compose-state/"+name+".key --addr "+c.api[node])
	}
}

// allRestart: one ceremony opens all; everything is as it was, on every node, with a log that verifies.
func (c *containers) allRestart(t *testing.T) {
	c.ok(t, c.drill(t, "restart", ""))
	c.healthy(t, nodes...)
	c.sealedButThere(t, nodes...)
	c.unseal(t, "n2", "alice", "carol")
	c.signsEverywhere(t)
	for _, n := range nodes {
		c.health(t, n, "serving", kind.ExitOK)
	}
	api := c.at(t, nodes...)
	eventually(t, serveWithin, "equal digests", func() error {
		s, err := c.status(t.Context(), api)
		if err != nil {
			return err
		}
		if len(s.GetNodes()) != len(nodes) {
			return fmt.Errorf("%d nodes", len(s.GetNodes()))
		}
		seen := map[string]bool{}
		for _, n := range s.GetNodes() {
			seen[fmt.Sprintf("%q at %d", n.GetDigest(), n.GetDigestIndex())] = true
		}
		if len(seen) != 1 || s.GetNodes()[0].GetDigest() == "" {
			return fmt.Errorf("digests: %v", seen)
		}
		return nil
	})
	c.ok(t, "conclave log verify")
}
