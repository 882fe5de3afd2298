package fsm

import (
	"hash/maphash"
	"sync/atomic"
)

// keyIndex finds a key by name in a few steps, however large the catalog is. The tree of keys, which is ordered, answers everything else, and what
// the index misses: a search in it compares some twenty names, each of them somewhere else in memory.
//
// It is made of two parts, because names are never removed. A key has a place, the number of keys before it, and which name has which place never changes:
// so all states of a machine share one table of that, to which only the working state adds. What is at a place is a state's own, a
// copy-on-write trie. A place that the table gives is looked at, so whatever is in the table, another key is never found.
type keyIndex struct {
	places *placeTable
	root   *block[block[block[block[block[Key]]]]]
	n      uint32 // how many places are taken
	edit   *edit
	adds   bool // of the machine's working state; keys that a Preview makes are in its tree only
}

// edit tells the blocks that only one state refers to.
type edit struct{ _ byte } // of some size, or all would have one address

// block is a node of the trie. Those that a state has made since it was last copied are modified in place, others never.
type block[T any] struct {
	edit *edit
	at   [1 << blockBits]*T
}

const (
	blockBits = 5
	// placeBits bound the places; keys beyond are found in the tree.
	placeBits = 24
	maxPlaces = 1<<placeBits - 1
	minSlots  = 64
)

func newKeyIndex() *keyIndex {
	return &keyIndex{places: newPlaceTable(), edit: new(edit), adds: true}
}

// copy ends what x may modify in place.
func (x *keyIndex) copy() *keyIndex {
	x.edit = new(edit)
	return &keyIndex{places: x.places, root: x.root, n: x.n, edit: new(edit)}
}

// get is nil also if the key is in the tree only.
func (x *keyIndex) get(name KeyName) *Key {
	_, k := x.find(name)
	return k
}

func (x *keyIndex) find(name KeyName) (place uint32, k *Key) {
	slots, tag := *x.places.slots.Load(), x.places.tag(name)
	for i := tag; ; i++ {
		s := slot(slots[i&uint64(len(slots)-1)].Load())
		if s == 0 {
			return 0, nil
		}
		if place := s.place(); s.tag() == tag && place < x.n {
			if k := x.at(place); k.Name == name {
				return place, k
			}
		}
	}
}

func (x *keyIndex) at(place uint32) *Key {
	return x.root.at[way(place, 4)].at[way(place, 3)].at[way(place, 2)].at[way(place, 1)].at[way(place, 0)]
}

// set stores a key, whether the tree had one of its name or not.
func (x *keyIndex) set(k *Key) {
	place, old := x.find(k.Name)
	if old == nil {
		if !x.adds || x.n == maxPlaces {
			return
		}
		place = x.n
		x.places.add(k.Name, place)
		x.n++
	}
	a := own(&x.root, x.edit)
	b := own(&a.at[way(place, 4)], x.edit)
	c := own(&b.at[way(place, 3)], x.edit)
	d := own(&c.at[way(place, 2)], x.edit)
	own(&d.at[way(place, 1)], x.edit).at[way(place, 0)] = k
}

// own puts a block that may be modified at p: the one that is there, a copy of it, or an empty one.
func own[T any](p **block[T], e *edit) *block[T] {
	switch b := *p; {
	case b == nil:
		*p = &block[T]{edit: e}
	case b.edit != e:
		*p = &block[T]{edit: e, at: b.at}
	}
	return *p
}

// way that leads to a place from a block, so many levels above the keys.
func way(place uint32, level int) uint32 {
	return place >> (level * blockBits) & (1<<blockBits - 1)
}

// placeTable is a hash table with linear probing, at most half full. One goroutine adds; any may read meanwhile. Hashes are keyed by a
// seed of the process, so nobody chooses names that collide, and nothing that nodes agree on depends on them.
type placeTable struct {
	tag   func(KeyName) uint64
	slots atomic.Pointer[[]atomic.Uint64]
	used  int
}

// slot is a tag of a name, the hash without its lowest bits, and the name's place; 0 is none.
type slot uint64

func newSlot(tag uint64, place uint32) slot { return slot(tag<<placeBits | uint64(place+1)) }

func (s slot) tag() uint64   { return uint64(s >> placeBits) }
func (s slot) place() uint32 { return uint32(s&(1<<placeBits-1)) - 1 }

func newPlaceTable() *placeTable {
	seed := maphash.MakeSeed()
	t := &placeTable{tag: func(name KeyName) uint64 { return maphash.String(seed, string(name)) >> placeBits }}
	slots := make([]atomic.Uint64, minSlots)
	t.slots.Store(&slots)
	return t
}

func (t *placeTable) add(name KeyName, place uint32) {
	slots := *t.slots.Load()
	if t.used++; 2*t.used > len(slots) {
		larger := make([]atomic.Uint64, 2*len(slots))
		for i := range slots {
			if s := slot(slots[i].Load()); s != 0 {
				put(larger, s)
			}
		}
		t.slots.Store(&larger) // who reads the old one finds what he finds there, or looks into the tree
		slots = larger
	}
	put(slots, newSlot(t.tag(name), place))
}

func put(slots []atomic.Uint64, s slot) {
	for i := s.tag(); ; i++ {
		if at := &slots[i&uint64(len(slots)-1)]; at.Load() == 0 {
			at.Store(uint64(s))
			return
		}
	}
}
