package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/cluster"
	"github.com/conclave-vault/conclave/cluster/lease"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// campaign is signers on every node, officers who restrict and lift without pause, and faults, all at once.
type campaign struct {
	w      *world
	o      *oracle
	ctx    context.Context
	user   atomic.Pointer[policy.Caller]
	tried  atomic.Uint64
	faults atomic.Uint64

	all     sync.WaitGroup
	members membershipFaults
	moves   moves
	stunned atomic.Bool // some state machine stands still
	length  time.Duration
	met     tally
}

const (
	campaignKeys = 3
	// userKey is the one that the user may use.
	userKey fsm.KeyName = "shared"
	user    string      = "eve"
	// budgetKey has a use budget.
	budgetKey fsm.KeyName = "purse"
)

// fullLength is that of a campaign that must have met every kind of fault and order.
const fullLength = 10 * time.Minute

// campaignLength of virtual time. A minute of three nodes takes one or two seconds, of five nodes four, five times as long under the race detector.
func campaignLength(usual time.Duration) time.Duration {
	if raceDetector && !long() {
		return time.Minute
	}
	return usual
}

func long() bool { return os.Getenv("CONCLAVE_LONG") != "" }

// signers on each node.
const signers = 2

// pulses are what the long form's number of operations comes from: bursts of the cheapest operation, because a virtual minute costs what
// happens in it.
const (
	pulseKey   fsm.KeyName = "pulse"
	pulseBurst int         = 30
)

// effort is what campaigns have done.
type effort struct{ operations, faults uint64 }

// longEffort is what the long form comes to, in rounds with clusters of their own. Each process draws its own faults, so it can be shared
// out: CONCLAVE_LONG_OPERATIONS is how many operations this one does, with a fault for every 4,000.
func longEffort(t *testing.T) effort {
	t.Helper()
	if !long() {
		return effort{}
	}
	operations := uint64(100_000_000)
	if text := os.Getenv("CONCLAVE_LONG_OPERATIONS"); text != "" {
		var err error
		if operations, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("CONCLAVE_LONG_OPERATIONS: %v", err)
		}
	}
	return effort{operations, operations / 4000}
}

func between(least, most time.Duration) time.Duration {
	return least + time.Duration(mathrand.Int64N(int64(most-least)))
}

// watch puts the oracle's token into every node.
func (c *campaign) watch(_ *process, vc *vault.Config) {
	vc.Keys = watchedKeys{vc.Keys, func() {
		if mathrand.IntN(10) == 0 {
			time.Sleep(between(0, 800*time.Millisecond)) // of the bubble's clock: a slow device
		}
		if mathrand.IntN(200) == 0 {
			time.Sleep(between(0, 8*time.Second)) // or a process that was paused between its two checks
		}
	}}
}

// lazyDisk is what waits for durable records have to outlast, in the bubble's time.
func lazyDisk(*os.File) error {
	time.Sleep(between(0, 10*time.Millisecond))
	if mathrand.IntN(500) == 0 {
		time.Sleep(between(0, 8*time.Second)) // a disk that hangs while leases run out
	}
	return nil
}

// runCampaign makes a cluster and runs everything for a time.
func runCampaign(w *world, size int, length time.Duration) *campaign {
	w.t.Helper()
	c := &campaign{w: w, o: newOracle(), length: length}
	w.tune = func(cfg *cluster.Config) {
		unruly(cfg)
		cfg.Lease = lease.Default()
		cfg.Lease.Available = brief
	}
	w.alter, w.disk = c.watch, lazyDisk
	first := w.unsealed(size)
	w.durableClass(first, "dear")
	w.strictClass(first, "careful")
	for i := range campaignKeys {
		class := []string{fsm.ClassStandard, "dear", "careful"}[i%3]
		_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: campaignKey(i), Class: class, Algorithm: hsm.Ed25519})
		w.must(err)
	}
	w.create(first, pulseKey, hsm.HMACSHA256)
	_, _, err := first.vault.CreateKey(w.ctx(), w.admin, request(), vault.NewKey{Name: userKey, Algorithm: hsm.Ed25519, Labels: []fsm.Label{{Name: "users", Value: user}}})
	w.must(err)
	w.create(first, budgetKey, hsm.Ed25519)
	w.budget(first, budgetKey, operations(1_000_000, 0))
	for range 2 { // the lower limit is 1
		_, err := first.vault.Sign(w.ctx(), w.admin, budgetKey, message(1))
		w.must(err)
	}
	c.run()
	w.t.Logf("%s: %d operations, %d released, %d acknowledgements, %d faults, %d times a node left and came: %s", length,
		c.tried.Load(), c.o.released(), c.o.acks(), c.faults.Load(), c.members.rounds.Load(), &c.met)
	return c
}

func campaignKey(i int) fsm.KeyName { return fsm.KeyName(fmt.Sprintf("key-%d", i)) }

// strictClass makes a class like standard, whose keys rest on no lease. The one that is built in needs approvals.
func (w *world) strictClass(p *process, name string) {
	w.t.Helper()
	class, _ := p.replica.State().Class(fsm.ClassStandard)
	class.Name, class.Lease, class.Revision = name, fsm.LeaseStrict, 0
	_, _, err := p.vault.CreateClass(w.ctx(), w.admin, request(), class)
	w.must(err)
}

func (c *campaign) run() {
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(c.w.ctx(), 10*c.length)
	defer cancel()
	for _, id := range c.w.ids() {
		for range signers {
			c.all.Go(func() { c.sign(id) })
		}
		if long() {
			c.all.Go(func() { c.pulse(id) })
		}
	}
	for i := range campaignKeys {
		c.all.Go(func() { c.suspendAndResume(campaignKey(i)) })
	}
	c.all.Go(func() { c.suspendAndResume(pulseKey) })
	for _, f := range []func(){c.employAndDismiss, c.dropAndWelcome, c.spendAndGrant, c.changeClasses, c.guardTheSeal, c.disturb} {
		c.all.Go(f)
	}
	for c.pause(c.length); c.tooLittle() && c.pause(time.Second); { // a campaign with bad luck goes on until it says something
	}
	cancel()
	c.all.Wait()
	c.endMembership()
}

// tooLittle happened for a campaign to say anything.
func (c *campaign) tooLittle() bool {
	return c.o.released() < 500 || c.o.acks() < 20 || c.faults.Load() < 5 || len(c.missing()) > 0
}

// missing are the kinds of faults and orders that a campaign of full length should have met, and has not.
func (c *campaign) missing() []string {
	if c.length < fullLength {
		return nil
	}
	all := orders
	for _, f := range faults() {
		all = append(all, f.name)
	}
	return c.met.missing(all...)
}

// pause waits and reports whether the campaign goes on.
func (c *campaign) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// sign uses keys on one node, whatever life it is in.
func (c *campaign) sign(id fsm.NodeID) {
	for c.pause(between(time.Millisecond, 80*time.Millisecond)) {
		_ = c.signOnce(c.w.node(id)) // what is refused is refused
	}
}

// signOn uses keys in one life of a node, while it lasts.
func (c *campaign) signOn(p *process) {
	for c.pause(between(time.Millisecond, 20*time.Millisecond)) {
		switch err := c.signOnce(p); {
		case errors.Is(err, errEnded):
			return
		case err == nil:
			c.met.add(signedByFirst)
		}
	}
}

func (c *campaign) signOnce(p *process) error {
	caller, name, subjects := c.choose()
	ctx, op := c.o.begin(c.ctx, string(p.id), append(subjects, nodeSubject(p.id))...)
	c.tried.Add(1)
	err := p.use(func(v *vault.Vault) error {
		_, err := v.Sign(ctx, caller, name, message(1))
		return err
	})
	if err == nil {
		op.finish()
	}
	return err
}

// pulse uses one key on one node in bursts, until something refuses it.
func (c *campaign) pulse(id fsm.NodeID) {
	subjects := []string{"cluster", "key/" + string(pulseKey), nodeSubject(id)}
	for c.pause(between(time.Millisecond, 40*time.Millisecond)) {
		for left := pulseBurst; left > 0 && c.mac(id, subjects) == nil; left-- {
		}
	}
}

func (c *campaign) mac(id fsm.NodeID, subjects []string) error {
	ctx, op := c.o.begin(c.ctx, string(id), subjects...)
	c.tried.Add(1)
	err := c.w.node(id).use(func(v *vault.Vault) error {
		_, err := v.MAC(ctx, c.w.admin, pulseKey, []byte("pulse"))
		return err
	})
	if err == nil {
		op.finish()
	}
	return err
}

func (c *campaign) choose() (policy.Caller, fsm.KeyName, []string) {
	if u := c.user.Load(); u != nil && mathrand.IntN(3) == 0 {
		return *u, userKey, []string{"cluster", "certificate/" + u.Serial, usersSubject}
	}
	if mathrand.IntN(8) == 0 {
		return c.w.admin, budgetKey, []string{"cluster", budgetSubject}
	}
	name := campaignKey(mathrand.IntN(campaignKeys))
	if moved, is := c.moves.any(); is && mathrand.IntN(3) == 0 {
		name = moved
	}
	return c.w.admin, name, []string{"cluster", "key/" + string(name)}
}

// order gives one order through any node, again with the same request id until it is acknowledged; false if the campaign ended
// before. A refusal is a defect: whoever orders here orders what the state allows.
func (c *campaign) order(what string, give func(context.Context, *vault.Vault, fsm.RequestID) error) bool {
	id := request()
	for {
		err := c.anywhere(func(v *vault.Vault) error {
			ctx, cancel := context.WithTimeout(c.ctx, between(500*time.Millisecond, 5*time.Second))
			defer cancel()
			return give(ctx, v, id)
		})
		if err == nil {
			return true
		}
		if refused, is := errors.AsType[*vault.Refused](err); is {
			c.w.t.Errorf("%s was refused: %s %v", what, refused.Code, err)
			return false
		}
		if !c.pause(between(0, 200*time.Millisecond)) {
			return false
		}
	}
}

func (c *campaign) anywhere(f func(*vault.Vault) error) error {
	ids := c.w.ids()
	return c.w.node(ids[mathrand.IntN(len(ids))]).use(f)
}

func (c *campaign) suspendAndResume(name fsm.KeyName) {
	change := func(a fsm.KeyAction) bool {
		acknowledged := c.o.ordering("key/"+string(name), a == fsm.ActionSuspend)
		done := c.order(string(a)+" "+string(name), func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
			_, _, err := v.ChangeKey(ctx, c.w.admin, id, vault.Change{Name: name, Action: a, Reason: "campaign"})
			return err
		})
		if done {
			acknowledged()
		}
		return done
	}
	for c.pause(between(0, 2*time.Second)) && change(fsm.ActionSuspend) {
		c.o.acknowledged("key/" + string(name))
		if !c.pause(between(0, 4*time.Second)) {
			return
		}
		c.o.lifting("key/" + string(name))
		if !change(fsm.ActionResume) {
			return
		}
	}
}

// employAndDismiss gives a user a new certificate and takes the role away again.
func (c *campaign) employAndDismiss() {
	for {
		serial, ok := c.employ()
		if !ok || !c.pause(between(0, 3*time.Second)) {
			return
		}
		dismissed := c.order("dismiss "+user, func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
			_, err := v.RevokeCertificates(ctx, c.w.admin, id, fsm.RevokeCertificates{Role: fsm.RoleUser, Name: user, Reason: "campaign"})
			return err
		})
		if !dismissed {
			return
		}
		c.o.acknowledged("certificate/" + serial)
		c.met.add(orderDismissed)
		if !c.pause(between(0, 3*time.Second)) { // the old certificate goes on being tried
			return
		}
	}
}

func (c *campaign) employ() (serial string, ok bool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.w.t.Error(err)
		return "", false
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: user}}, key)
	if err != nil {
		c.w.t.Error(err)
		return "", false
	}
	ok = c.order("employ "+user, func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
		cert, _, _, err := v.IssueCertificate(ctx, c.w.admin, id, fsm.RoleUser, user, csr, time.Hour)
		if err == nil {
			serial = pki.Serial(cert)
		}
		return err
	})
	if ok {
		c.user.Store(&policy.Caller{Cluster: c.w.admin.Cluster, Role: fsm.RoleUser, Name: user, Serial: serial})
	}
	return serial, ok
}

// guardTheSeal unseals what has restarted, and orders the whole cluster to seal now and then.
func (c *campaign) guardTheSeal() {
	for i := 1; c.pause(2 * time.Second); i++ {
		if i%8 == 0 {
			if !c.order("seal", func(ctx context.Context, v *vault.Vault, id fsm.RequestID) error {
				_, err := v.Seal(ctx, c.w.admin, id, "campaign")
				return err
			}) {
				return
			}
			c.o.acknowledged("cluster")
			c.met.add(orderSeal)
			if !c.pause(between(0, 4*time.Second)) {
				return
			}
			c.o.lifting("cluster")
		}
		c.unsealAll()
	}
}

// unsealAll gives shares through whatever node takes them; who cannot be reached is unsealed another time.
func (c *campaign) unsealAll() {
	sealed := false
	for _, p := range c.w.live() {
		sealed = sealed || p.sealed()
	}
	for i := 0; sealed && i < threshold; i++ {
		_ = c.anywhere(func(v *vault.Vault) error { // faults make it fail, and the next round tries again
			ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
			defer cancel()
			return c.giveShare(ctx, v, i)
		})
	}
}

func (c *campaign) report(t *testing.T, found []release) {
	t.Helper()
	for i, r := range found {
		if i == 5 {
			t.Errorf("… and %d more", len(found)-i)
			return
		}
		t.Errorf("%s released a result at %d…%d against a restriction of %v", r.node, r.worked, r.left, r.subjects)
	}
}

// TestNothingIsReleasedAgainstAnAcknowledgedRestriction is the promise of linearizable revocation, under everything that a
// network and a crash can do.
func TestNothingIsReleasedAgainstAnAcknowledgedRestriction(t *testing.T) {
	kinds := map[string]struct {
		size       int
		persistent bool // a restarted node is back with its keys at once
		length     time.Duration
	}{
		"3 nodes":                         {3, false, fullLength},
		"3 nodes with persistent masters": {3, true, 2 * time.Minute},
		"5 nodes":                         {5, false, fullLength},
	}
	if raceDetector && !long() {
		delete(kinds, "5 nodes") // the dearest by far, and it runs at its full length without the detector
	}
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			var done effort
			share := longEffort(t)
			share.operations, share.faults = share.operations/uint64(len(kinds))+1, share.faults/uint64(len(kinds))+1
			for round := 0; round == 0 || long() && (done.operations < share.operations || done.faults < share.faults); round++ {
				inWorld(t, func(w *world) {
					w.persistent = c.persistent
					run := runCampaign(w, c.size, campaignLength(c.length))
					run.report(t, run.o.violations())
					run.linearizable(t)
					if run.tooLittle() {
						t.Errorf("too little happened for this to say anything; not at all: %v", run.missing())
					}
					done.operations += run.tried.Load()
					done.faults += run.faults.Load()
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d operations and %d faults in all", done.operations, done.faults)
		})
	}
}
