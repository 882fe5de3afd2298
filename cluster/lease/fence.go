package lease

import "slices"

// maxFences bounds the remembered fences of one process. Restrictions are many only for moments, and one whose fence is forgotten waits
// until the process has applied it.
const maxFences = 256

// Fenced notes that a process has put up the fence of the restriction at index: until it has applied that, it releases nothing that the
// restriction forbids. That says nothing of any other restriction, and nothing of another process of the node. A process that has
// never renewed here is not known, and is waited for as before.
func (t *Table) Fenced(node, boot string, index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.nodes[node]
	if s == nil {
		return
	}
	for _, b := range s.boots {
		if b.id == boot && b.applied < index && !slices.Contains(b.fenced, index) {
			b.fenced = slices.DeleteFunc(b.fenced, func(i uint64) bool { return i <= b.applied })
			b.fenced = append(b.fenced, index)
			b.fenced = b.fenced[max(0, len(b.fenced)-maxFences):]
		}
	}
}

// behindFence reports whether the process has put up the fence of the restriction at index; any includes those of later ones.
func (b *boot) behindFence(index uint64, any bool) bool {
	return slices.ContainsFunc(b.fenced, func(i uint64) bool { return i == index || any && i > index })
}
