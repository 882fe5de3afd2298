package cli

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// frontier is an RFC 6962 Merkle tree of which only the roots of its perfect subtrees are kept, largest first: enough to go on and
// to compute the root, in memory that grows with the logarithm of the log.
type frontier struct {
	size   uint64
	hashes []tlog.Hash
}

func (f *frontier) add(leaf tlog.Hash) {
	f.hashes = append(f.hashes, leaf)
	for n := f.size; n&1 == 1; n >>= 1 { // each trailing one of the old size is a subtree that is now complete
		last := len(f.hashes) - 1
		f.hashes[last-1] = tlog.NodeHash(f.hashes[last-1], f.hashes[last])
		f.hashes = f.hashes[:last]
	}
	f.size++
}

func (f *frontier) root() tlog.Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	root := f.hashes[len(f.hashes)-1]
	for i := len(f.hashes) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.hashes[i], root)
	}
	return root
}
