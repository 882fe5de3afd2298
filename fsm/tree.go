package fsm

import (
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// maxLevels bounds the levels of a tree: one for each bit of its size.
const maxLevels = 64

// Frontier is the right edge of an RFC 6962 Merkle tree: the roots of its perfect subtrees, largest first. It is all that is
// needed to append leaves and to compute the root. The zero value is the empty tree. It is a value: a copy goes its own way, and
// an append makes no garbage.
type Frontier struct {
	size   uint64
	hashes [maxLevels]tlog.Hash // the first bits.OnesCount64(size)
}

// LeafHash is RFC 6962's hash of a leaf.
func LeafHash(leaf []byte) [32]byte { return tlog.RecordHash(leaf) }

// NewFrontier continues a tree of size leaves from the hashes that Hashes returned. ErrInvalid if their number does not fit.
func NewFrontier(size uint64, hashes [][32]byte) (Frontier, error) {
	if n := bits.OnesCount64(size); n != len(hashes) {
		return Frontier{}, invalid("a tree of %d leaves has a frontier of %d hashes, not %d", size, n, len(hashes))
	}
	f := Frontier{size: size}
	for i, h := range hashes {
		f.hashes[i] = h
	}
	return f, nil
}

// Append adds a leaf.
func (f *Frontier) Append(leaf []byte) { f.AppendHash(LeafHash(leaf)) }

// AppendHash adds a leaf by its LeafHash.
func (f *Frontier) AppendHash(leaf [32]byte) {
	h, keep := tlog.Hash(leaf), bits.OnesCount64(f.size)
	for n := f.size; n&1 == 1; n >>= 1 {
		keep--
		h = tlog.NodeHash(f.hashes[keep], h)
	}
	f.hashes[keep] = h
	f.size++
}

// Size is the number of leaves.
func (f Frontier) Size() uint64 { return f.size }

// Hashes are the roots of the perfect subtrees, largest first.
func (f Frontier) Hashes() [][32]byte {
	return mapped(f.edge(), func(h tlog.Hash) [32]byte { return h })
}

func (f Frontier) edge() []tlog.Hash { return f.hashes[:bits.OnesCount64(f.size)] }

// Root is the tree's hash; that of the empty string for the empty tree (RFC 6962 §2.1).
func (f Frontier) Root() [32]byte {
	if f.size == 0 {
		return emptyRoot()
	}
	edge := f.edge()
	root := edge[len(edge)-1]
	for _, left := range slices.Backward(edge[:len(edge)-1]) {
		root = tlog.NodeHash(left, root)
	}
	return root
}

func emptyRoot() [32]byte {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(fmt.Sprintf("fsm: the hash of an empty tree: %v", err)) // reads nothing, so nothing can fail
	}
	return h
}
