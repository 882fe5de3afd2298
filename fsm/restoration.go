package fsm

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// restoration is a state that is being read from a snapshot. Keys come in their tree's order and are appended to it. What follows
// from them has other orders, in which a million insertions would each look for their place in memory that no cache holds: it is
// collected, sorted once and appended too, before the first record that asks for it. A snapshot in any other order yields the same state, slower.
type restoration struct {
	*State
	ids     []nameOf
	dates   []dueEntry
	ofClass map[string]int
}

// nameOf is an entry of the state's names, with the first bytes of the id: they decide nearly every comparison, without a look at
// the text.
type nameOf struct {
	head uint64
	id   KeyID
	name KeyName
}

func (n nameOf) compare(o nameOf) int {
	if n.head != o.head {
		return cmp.Compare(n.head, o.head)
	}
	return strings.Compare(string(n.id), string(o.id))
}

func newRestoration() *restoration {
	return &restoration{State: newState(), ofClass: map[string]int{}}
}

func (s *restoration) restoreKey(k *Key) error {
	for i := range k.Versions {
		if k.Versions[i].Version != Version(i+1) {
			return invalid("key %s has no version %d", k.Name, i+1)
		}
	}
	if k.Primary == 0 || int(k.Primary) > len(k.Versions) {
		return invalid("key %s has no primary version", k.Name)
	}
	s.ids = append(s.ids, nameOf{firstBytes(string(k.ID)), k.ID, k.Name})
	s.dates = s.appendDues(s.dates, k)
	s.ofClass[k.Class]++
	s.byName.set(k)
	return placed(s.keys.Load(k.Name, k))
}

// firstBytes orders as the texts do, as far as it goes.
func firstBytes(text string) uint64 {
	var b [8]byte
	copy(b[:], text)
	return binary.BigEndian.Uint64(b[:])
}

// index builds what follows from the keys so far: all of them, unless records are in another order than a machine's.
func (s *restoration) index() error {
	slices.SortFunc(s.ids, nameOf.compare)
	for _, n := range s.ids {
		if _, twice := s.names.Load(n.id, n.name); twice {
			return invalid("the key id %s stands twice", clip(string(n.id)))
		}
	}
	slices.SortFunc(s.dates, dueEntry.compare)
	for _, e := range s.dates {
		s.schedule.Load(e) // it finds the place of one that does not go to the end, for the dates of tokens are there already
	}
	for class, n := range s.ofClass {
		s.countKey(class, n)
	}
	s.ids, s.dates = nil, nil
	clear(s.ofClass)
	return nil
}

// finish returns the state if its records fit together.
func (s *restoration) finish() (*State, error) {
	if err := s.index(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return s.State, s.coherent()
}
