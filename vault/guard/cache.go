package guard

import (
	"context"
	"errors"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/conclave-vault/conclave/fsm"
)

// id names a working copy. The generation is part of it: after a rekey the same version is another blob.
type id struct {
	key        fsm.KeyID
	version    fsm.Version
	generation uint32
}

func cacheID(s Selected) id { return id{s.Key.ID, s.Version.Version, s.Version.Generation} }

// entry is a working copy with its borrowers. The cache itself counts as one; the last to go releases.
type entry struct {
	key     Key
	ready   chan struct{} // closed when key or err is set
	err     error
	holders int
}

// cache is a bounded LRU of working copies. Unwrapping is slow on a device, so concurrent misses of one key share a call. The lock
// is held for bookkeeping only: opening and releasing, which reach the device, happen outside.
type cache struct {
	mu      sync.Mutex
	entries *lru.LRU[id, *entry]
	unused  []Key // to be released by whoever lets go of mu
}

// defaultCacheKeys: a device spends about 10 KB a copy, so this is some 100 MB at the most.
const defaultCacheKeys = 10_000

func newCache(size int) *cache {
	if size <= 0 {
		size = defaultCacheKeys
	}
	c := &cache{}
	c.entries, _ = lru.NewLRU(size, func(_ id, e *entry) { c.drop(e) }) // fails only for a size ≤ 0
	return c
}

// drop gives one hold back; mu is held.
func (c *cache) drop(e *entry) {
	e.holders--
	if e.holders == 0 && e.key != nil {
		c.unused = append(c.unused, e.key)
	}
}

// unlock lets go of mu and releases what nobody holds any more.
func (c *cache) unlock() {
	unused := c.unused
	c.unused = nil
	c.mu.Unlock()
	for _, key := range unused {
		key.Release()
	}
}

// get returns a working copy and the function that gives it back.
func (c *cache) get(ctx context.Context, i id, open func(context.Context) (Key, error)) (Key, func(), error) {
	c.mu.Lock()
	e, found := c.entries.Get(i)
	if !found {
		e = &entry{ready: make(chan struct{}), holders: 1}
		c.entries.Add(i, e)
	}
	e.holders++
	c.unlock()
	if !found {
		c.fill(ctx, i, e, open)
	}
	release := func() { c.mu.Lock(); c.drop(e); c.unlock() }
	select {
	case <-e.ready:
	case <-ctx.Done():
		release()
		return nil, nil, ctx.Err()
	}
	if e.err != nil {
		release()
		return nil, nil, e.err
	}
	return e.key, release, nil
}

// errOpening stands for the result of an opening that never came: it panicked, and those who wait for it must not wait for ever.
var errOpening = errors.New("opening the key ended without a result")

// fill opens for everybody who waits; a failure is not cached. The first caller's deadline must not become the others' error,
// hence WithoutCancel: opening is local and short.
func (c *cache) fill(ctx context.Context, i id, e *entry, open func(context.Context) (Key, error)) {
	var key Key
	err := errOpening
	defer func() {
		c.mu.Lock()
		defer c.unlock()
		e.key, e.err = key, err
		if err != nil {
			c.remove(i, e)
		}
		close(e.ready)
	}()
	key, err = open(context.WithoutCancel(ctx))
}

// remove takes an entry out, unless another one has its place by now; mu is held.
func (c *cache) remove(i id, e *entry) {
	if current, found := c.entries.Peek(i); found && current == e {
		c.entries.Remove(i)
	}
}

// discard takes a copy out that turned out to be of no use; those who hold it give it back as ever.
func (c *cache) discard(i id, key Key) {
	c.mu.Lock()
	defer c.unlock()
	if e, found := c.entries.Peek(i); found && e.key == key {
		c.entries.Remove(i)
	}
}

// purge drops the entries that match. Copies in use live until their last borrower is done.
func (c *cache) purge(match func(id) bool) {
	c.mu.Lock()
	defer c.unlock()
	for _, i := range c.entries.Keys() {
		if match(i) {
			c.entries.Remove(i)
		}
	}
}
