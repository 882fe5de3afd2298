package ledger

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrProof: a proof does not prove what it should.
var ErrProof = errors.New("the proof does not hold")

// Stretch proves that consecutive leaves [From, From+n) are those of a tree of Size leaves: the hashes of the largest complete
// subtrees that cover what is before and what is behind them, left to right. With the leaves they make the root (RFC 6962 §2.1:
// the shape of the tree follows from its size, so nothing else does).
type Stretch struct {
	From, Size    uint64
	Before, After []tlog.Hash
}

// ProveStretch reads the hashes that prove leaves [from, to) in a tree of size leaves.
func ProveStretch(from, to, size uint64, r tlog.HashReader) (Stretch, error) {
	if from > to || to > size || size > 1<<62 {
		return Stretch{}, fmt.Errorf("%w: leaves %d to %d of %d", ErrProof, from, to, size)
	}
	before, err := r.ReadHashes(cover(0, from))
	if err != nil {
		return Stretch{}, err
	}
	after, err := r.ReadHashes(cover(to, size))
	return Stretch{From: from, Size: size, Before: before, After: after}, err
}

// cover is the largest complete subtrees of [from, to), as indexes of stored hashes.
func cover(from, to uint64) []int64 {
	var all []int64
	for from < to {
		level := largest(from, to)
		all = append(all, tlog.StoredHashIndex(level, int64(from>>level)))
		from += 1 << level
	}
	return all
}

// largest is the level of the largest complete subtree that begins at from and ends by to.
func largest(from, to uint64) int {
	level := bits.Len64(to-from) - 1
	if from != 0 {
		level = min(level, bits.TrailingZeros64(from))
	}
	return level
}

// Check reports whether the leaves, by their hashes, are in the tree with this root. ErrProof if not. The caller knows the root and
// knows that it is of a tree of s.Size leaves: a proof does not show a tree's size.
func (s Stretch) Check(leaves []tlog.Hash, root tlog.Hash) error {
	to := s.From + uint64(len(leaves))
	if to < s.From || to > s.Size || s.Size > 1<<62 {
		return fmt.Errorf("%w: %d leaves from %d are not in a tree of %d", ErrProof, len(leaves), s.From, s.Size)
	}
	if len(s.Before) != len(cover(0, s.From)) || len(s.After) != len(cover(to, s.Size)) {
		return fmt.Errorf("%w: it has not the hashes that this place in the tree needs", ErrProof)
	}
	var e edge
	e.addCover(0, s.From, s.Before)
	for _, h := range leaves {
		e.add(0, h)
	}
	e.addCover(to, s.Size, s.After)
	if e.root() != root {
		return fmt.Errorf("%w: the root of the tree is another", ErrProof)
	}
	return nil
}

// edge is the right edge of a growing tree: complete subtrees, largest first.
type edge struct {
	levels []int
	hashes []tlog.Hash
}

func (e *edge) addCover(from, to uint64, hashes []tlog.Hash) {
	for _, h := range hashes {
		level := largest(from, to)
		e.add(level, h)
		from += 1 << level
	}
}

// add appends a complete subtree, whose place fits: the subtrees before it are as large or larger.
func (e *edge) add(level int, h tlog.Hash) {
	for n := len(e.levels); n > 0 && e.levels[n-1] == level; n = len(e.levels) {
		h = tlog.NodeHash(e.hashes[n-1], h)
		e.levels, e.hashes = e.levels[:n-1], e.hashes[:n-1]
		level++
	}
	e.levels, e.hashes = append(e.levels, level), append(e.hashes, h)
}

func (e *edge) root() tlog.Hash {
	if len(e.hashes) == 0 {
		return EmptyRoot()
	}
	last := len(e.hashes) - 1
	root := e.hashes[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(e.hashes[i], root)
	}
	return root
}

// EmptyRoot is the root of the tree without leaves (RFC 6962 §2.1).
func EmptyRoot() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(fmt.Sprintf("ledger: the hash of an empty tree: %v", err)) // reads nothing, so nothing can fail
	}
	return h
}
