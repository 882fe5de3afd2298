package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// copyOf counts how often it was given back, and fails its first uses.
type copyOf struct {
	keyuse.Key
	released atomic.Int32
	fail     error
}

func (c *copyOf) Release() { c.released.Add(1) }

func (c *copyOf) MAC(context.Context, []byte) ([]byte, error) { return nil, c.fail }

// dropping is a port whose first copies die in use with an error.
type dropping struct {
	fail   error
	dying  int
	opened []*copyOf
}

func (d *dropping) Open(context.Context, hsm.WrappedKey) (keyuse.Key, error) {
	c := &copyOf{}
	if len(d.opened) < d.dying {
		c.fail = d.fail
	}
	d.opened = append(d.opened, c)
	return c, nil
}

var errOther = errors.New("anything else")

// TestADroppedCopyIsReplacedOnce: never more often, for no other error, and every copy is given back.
func TestADroppedCopyIsReplacedOnce(t *testing.T) {
	for _, c := range []struct {
		fail                error
		dying, opened, uses int
		want                error
	}{
		{hsm.ErrHandle, 0, 1, 1, nil},
		{hsm.ErrHandle, 1, 2, 2, nil},
		{hsm.ErrHandle, 9, 2, 2, hsm.ErrHandle},
		{hsm.ErrSealed, 1, 2, 2, nil},
		{hsm.ErrVerify, 1, 1, 1, hsm.ErrVerify},
		{hsm.ErrWrappedKey, 1, 1, 1, hsm.ErrWrappedKey},
		{hsm.ErrInput, 1, 1, 1, hsm.ErrInput},
		{errOther, 1, 1, 1, errOther},
	} {
		d := &dropping{fail: fmt.Errorf("mac: %w", c.fail), dying: c.dying}
		g := New(Config{Keys: d, ClusterID: func() string { return "c" }})
		uses := 0
		used, err := g.lend(t.Context(), Selected{}, func(ctx context.Context, k Key, _ Selected) error {
			uses++
			_, err := k.MAC(ctx, nil)
			return err
		})
		if err != nil || !errors.Is(used, c.want) || len(d.opened) != c.opened || uses != c.uses {
			t.Errorf("%v, %d copies dying: %v, %v; %d opened, %d uses", c.fail, c.dying, used, err, len(d.opened), uses)
		}
		g.Purge()
		for i, k := range d.opened {
			if n := k.released.Load(); n != 1 {
				t.Errorf("%v: copy %d was given back %d times", c.fail, i, n)
			}
		}
	}
}

// TestTheCacheIsBounded: never more copies open than it may keep, but for those in use; all are given back in the end.
func TestTheCacheIsBounded(t *testing.T) {
	const size, keys = 8, 100
	c := newCache(size)
	var live, most atomic.Int32
	open := func(context.Context) (Key, error) {
		n := live.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return &counted{live: &live}, nil
	}
	const users = 4
	var wg sync.WaitGroup
	for u := range users {
		wg.Go(func() {
			for i := range 10 * keys {
				_, release, err := c.get(t.Context(), id{key: fsm.KeyID(fmt.Sprint((i * (u + 1)) % keys))}, open)
				if err != nil {
					t.Error(err)
					return
				}
				release()
			}
		})
	}
	wg.Wait()
	if n := live.Load(); n != size {
		t.Errorf("%d copies are open, %d may be", n, size)
	}
	if m := most.Load(); m > size+2*users { // each user opens one and, outside the lock, is about to give one back
		t.Errorf("%d copies were open at once", m)
	}
	c.purge(func(id) bool { return true })
	if n := live.Load(); n != 0 {
		t.Errorf("%d copies are open after a purge", n)
	}
}

type counted struct {
	keyuse.Key
	live *atomic.Int32
}

func (c *counted) Release() { c.live.Add(-1) }

// TestAPanicOfOpeningLeavesNobodyWaiting, and the key can be opened afterwards.
func TestAPanicOfOpeningLeavesNobodyWaiting(t *testing.T) {
	c := newCache(2)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _, _ = c.get(t.Context(), id{}, func(context.Context) (Key, error) { panic("a module of a vendor") })
	}()
	_, release, err := c.get(t.Context(), id{}, func(context.Context) (Key, error) { return &copyOf{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	release()
}
