package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

const (
	// lookForDue is how often a leader looks for what is due, and any node for what it has to erase: so long may a date be overrun.
	lookForDue = time.Second
	// dueBatch bounds what one look takes up of each sort; what is left is taken up by the next one, at once.
	dueBatch = 256
	// dueWorkers is how many proposals are under way together: raft commits them in few batches.
	dueWorkers = 16
	// firstRetry and lastRetry bound the pauses after a due action was refused, doubled each time: what stands in its way, such as a node
	// that cannot use the algorithm, is removed by people.
	firstRetry = 10 * time.Second
	lastRetry  = time.Hour
)

// deferred remembers, on a leader, what was refused and when to try it again. Only Run's scheduler and its workers touch it.
type deferred struct {
	mu  sync.Mutex
	all map[fsm.Due]pause
}

type pause struct {
	until time.Time
	last  time.Duration
}

// skip reports whether it is too early to try again. Monotonic time: a clock that is set must not stop the scheduler.
func (d *deferred) skip(due fsm.Due) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, known := d.all[due]
	return known && time.Now().Before(p.until)
}

// after puts a due action off and reports whether it is the first time.
func (d *deferred) after(due fsm.Due) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, known := d.all[due]
	p.last = min(max(2*p.last, firstRetry), lastRetry)
	p.until = time.Now().Add(p.last)
	if d.all == nil {
		d.all = map[fsm.Due]pause{}
	}
	d.all[due] = p
	return !known
}

// tidy forgets what was not refused again for long: it was done, or its object has changed.
func (d *deferred) tidy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for due, p := range d.all {
		if time.Since(p.until) > lastRetry {
			delete(d.all, due)
		}
	}
}

// schedule carries out what is due while this node leads, and erases on every node what is being destroyed.
func (v *Vault) schedule(ctx context.Context) error {
	tick := time.NewTicker(lookForDue)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.eraseDestroyed()
			for v.executeDue(ctx) {
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// executeDue proposes what is due and reports whether there may be more of it at once. Each proposal carries date and revision, so it
// does no harm if an earlier leader's is still on its way: the state machine takes the first and refuses the other.
func (v *Vault) executeDue(ctx context.Context) bool {
	if !v.cfg.Proposer.IsLeader() || !v.anythingDue(v.cfg.Now().Add(clockTolerance)) || v.readyToLead(ctx) != nil || v.clockFit(ctx) != nil {
		return false
	}
	v.deferred.tidy()
	s := v.state()
	work := onePerObject(s.Due(v.stamp(ctx), dueBatch, v.deferred.skip))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(dueWorkers)
	for _, d := range work {
		g.Go(func() error { return v.execute(ctx, s, d) })
	}
	// An error is leadership that ended or this node that stops: whoever leads next goes on.
	return g.Wait() == nil && len(work) > 0 && ctx.Err() == nil
}

// anythingDue costs the same however much the catalog holds.
func (v *Vault) anythingDue(at time.Time) bool {
	next, some := v.state().NextDue()
	return some && !next.After(at)
}

// onePerObject keeps the first of each object: with it the revision changes, so the others wait for the next look. Their order is kept that
// way, too: a rotation goes before the deactivation that it is to precede.
func onePerObject(due []fsm.Due) []fsm.Due {
	seen := make(map[string]bool, len(due))
	var first []fsm.Due
	for _, d := range due {
		if !seen[d.Subject] {
			seen[d.Subject] = true
			first = append(first, d)
		}
	}
	return first
}

// execute proposes one. Its error is that nothing can be proposed now; a refusal is put off.
func (v *Vault) execute(ctx context.Context, s *fsm.State, d fsm.Due) error {
	c := fsm.ExecuteDue{Due: d}
	if d.Kind == fsm.DueRotate || d.Kind == fsm.DueUses {
		m, err := v.rotationMaterial(ctx, s, d)
		if err != nil {
			v.putOff(ctx, d, err)
			return nil
		}
		c.Material = m
	}
	r, err := v.propose(ctx, fsm.Entry{Command: c, Actor: v.actor()})
	if err != nil {
		return err
	}
	if r.Code != fsm.CodeOK && r.Code != fsm.CodeVersionConflict { // a conflict: it was done, or somebody changed the object
		v.putOff(ctx, d, refused(r))
	}
	return nil
}

func (v *Vault) putOff(ctx context.Context, d fsm.Due, err error) {
	if ctx.Err() != nil {
		return
	}
	if v.deferred.after(d) {
		v.log.Warn("what is due cannot be done now and is tried again", "due", d.Kind.String(), "subject", d.Subject, "version", d.Version, "at", d.At, "err", err)
	}
}

// rotationMaterial makes the next version of a key: in this node's HSM, or, if this node is sealed or drained, in that of any other that is not.
func (v *Vault) rotationMaterial(ctx context.Context, s *fsm.State, d fsm.Due) (fsm.Material, error) {
	k, found := s.Key(fsm.KeyName(d.Subject))
	if !found {
		return fsm.Material{}, fmt.Errorf("%w: there is no key %q", guard.ErrNotFound, d.Subject)
	}
	q := generateQuery{Key: k.Name, Version: k.Versions[len(k.Versions)-1].Version + 1}
	m, err := v.generateNext(ctx, q)
	if err == nil {
		return m, nil
	}
	failed := err
	for _, n := range s.Nodes() {
		if n.ID == v.cfg.Node {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		m, err := askNode[fsm.Material](ctx, v, n.ID, kindGenerate, q)
		cancel()
		if err == nil {
			return m, nil
		}
		failed = errors.Join(failed, fmt.Errorf("node %s: %w", n.ID, err))
	}
	return fsm.Material{}, failed
}

// generateQuery asks a node for the material of a key's next version.
type generateQuery struct {
	Key     fsm.KeyName `json:"key"`
	Version fsm.Version `json:"version"`
}

// generateNext makes material that is of use only as the named version of the named key, wrapped under the master: it tells nobody anything.
func (v *Vault) generateNext(ctx context.Context, q generateQuery) (fsm.Material, error) {
	s := v.state()
	if err := v.mayUse(s); err != nil {
		return fsm.Material{}, err
	}
	k, found := s.Key(q.Key)
	if !found || q.Version != k.Versions[len(k.Versions)-1].Version+1 {
		return fsm.Material{}, fmt.Errorf("%w: key %q has no next version %d here", guard.ErrNotFound, q.Key, q.Version)
	}
	_, m, err := v.nextMaterial(ctx, s, k)
	return m, err
}
