package fsm

import (
	"cmp"
	"slices"
	"strings"
)

// Capability is what a node's HSM can do with an algorithm, in the words of hsm.Ability: generate, import, wrap, unwrap, sign, decrypt, mac,
// agree, decapsulate. The state machine compares them and gives them no meaning of its own; Device.Algorithms is what it decides by.
type Capability struct {
	Algorithm  string
	Operations []string // in the device's order
}

func (c Capability) equal(o Capability) bool {
	return c.Algorithm == o.Algorithm && slices.Equal(c.Operations, o.Operations)
}

// Lack says in the device's words, with its mechanism, why a node cannot do some operations with an algorithm.
type Lack struct {
	Algorithm, Why string
	Operations     []string // those that it cannot do; nil in entries of older releases, which did not say
}

func (l Lack) equal(o Lack) bool {
	return l.Algorithm == o.Algorithm && l.Why == o.Why && slices.Equal(l.Operations, o.Operations)
}

// lack explains why a device does not have an algorithm; "" if it does not say.
func (d Device) lack(algorithm string) string {
	for _, l := range d.Lacks {
		if l.Algorithm != algorithm {
			continue
		}
		if len(l.Operations) == 0 {
			return ": " + l.Why
		}
		return " (it cannot " + strings.Join(l.Operations, ", ") + "): " + l.Why
	}
	return ""
}

// sorted is the canonical form of what a node says.
func (d Device) sorted() Device {
	d.Algorithms = slices.Compact(slices.Sorted(slices.Values(d.Algorithms)))
	d.Lacks = slices.SortedFunc(slices.Values(d.Lacks), func(a, b Lack) int {
		return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), cmp.Compare(a.Why, b.Why), slices.Compare(a.Operations, b.Operations))
	})
	d.Capabilities = slices.SortedFunc(slices.Values(d.Capabilities), func(a, b Capability) int {
		return cmp.Or(cmp.Compare(a.Algorithm, b.Algorithm), slices.Compare(a.Operations, b.Operations))
	})
	return d
}

func validDevice(d Device) error {
	if err := validText("the node's HSM model", d.HSM, maxShort); err != nil {
		return err
	}
	if err := validText("the library of the node's HSM", d.Library, maxLibrary); err != nil {
		return err
	}
	if n := max(len(d.Algorithms), len(d.Lacks), len(d.Capabilities)); n > maxAlgorithms {
		return invalid("a node has at most %d algorithms, this one %d", maxAlgorithms, n)
	}
	names := slices.Clone(d.Algorithms)
	for _, l := range d.Lacks {
		names = append(names, l.Algorithm)
		if err := validText("what an HSM lacks", l.Why, maxLibrary); err != nil {
			return err
		}
		if err := validOperations(l.Operations); err != nil {
			return err
		}
	}
	for _, c := range d.Capabilities {
		names = append(names, c.Algorithm)
		if err := validOperations(c.Operations); err != nil {
			return err
		}
	}
	for _, a := range names {
		if !isName(a, maxShort) {
			return invalid("algorithm %q is no algorithm's name", clip(a))
		}
	}
	return nil
}

// maxOperations of one algorithm: there are nine.
const maxOperations = 32

func validOperations(names []string) error {
	if len(names) > maxOperations {
		return invalid("an algorithm has at most %d operations, this one %d", maxOperations, len(names))
	}
	for _, name := range names {
		if !isName(name, maxShort) {
			return invalid("operation %q is no operation's name", clip(name))
		}
	}
	return nil
}
