package e2e_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Of a journal segment: a header with the number of its first leaf, then records of a header, the data and the leaf's hash.
const (
	segmentHeader = len("conclave journal 1\n") + 8
	recordHeader  = 16
	recordHash    = 32
)

// region is a byte of a segment and the leaf that it belongs to.
type region struct {
	name   string
	offset int
	leaf   uint64
}

// regions are a byte of each kind, of the first record, one in the middle and the last.
func regions(t *testing.T, segment []byte) []region {
	t.Helper()
	var starts []int
	for at := segmentHeader; at < len(segment); {
		starts = append(starts, at)
		at += recordHeader + int(binary.BigEndian.Uint32(segment[at:])) + recordHash
	}
	all := []region{{"the segment's magic", 3, 0}, {"the segment's first leaf", segmentHeader - 1, 0}}
	for _, leaf := range []int{0, len(starts) / 2, len(starts) - 1} {
		start, end := starts[leaf], len(segment)
		if leaf+1 < len(starts) {
			end = starts[leaf+1]
		}
		all = append(all,
			region{"a record's length", start + 3, uint64(leaf)}, region{"a record's number", start + 11, uint64(leaf)},
			region{"a record's checksum", start + 12, uint64(leaf)}, region{"a record's first byte", start + recordHeader, uint64(leaf)},
			region{"a record's last byte", end - recordHash - 1, uint64(leaf)}, region{"a record's hash", end - 1, uint64(leaf)})
	}
	return all
}

// TestOneByteIsFoundAndHealed flips bytes of one node's journal, while it runs and while it is down. The audit that reads the byte
// names its leaf; the node mends itself from the others without anybody asking, and keeps what was there.
func TestOneByteIsFoundAndHealed(t *testing.T) {
	t.Parallel()
	c := own(t, "persistent")
	for range 5 {
		c.admin.ok(t, "pki", "issue", "--role", "user", "--name", "somebody", "--out", t.TempDir())
	}
	c.healthy(t)
	n := c.nodes[1]
	for i := range regions(t, read(t, segment(t, n))) {
		path := segment(t, n)
		r := regions(t, read(t, path))[i]
		flip(t, path, r.offset)
		findsLeaf(t, c, n, r, "while it runs")
		healed(t, c, r.name)
	}
	for i := range 3 {
		c.stop(t, n)
		path := segment(t, n)
		r := regions(t, read(t, path))[3*i+1]
		flip(t, path, r.offset)
		c.start(t, n)
		c.serving(t, 30*time.Second)
		healed(t, c, r.name)
	}
	evidence, err := filepath.Glob(filepath.Join(n.data(), "log", "evidence", "*"))
	if err != nil || len(evidence) < 10 {
		t.Errorf("of all that was changed only %q is kept, %v", evidence, err)
	}
	c.healthy(t)
}

// segment is the one that a node's log has: it is too short for two.
func segment(t *testing.T, n *member) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(n.data(), "log", "*.seg"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %q, %v", segments, err)
	}
	return segments[0]
}

// healed waits until an audit finds nothing.
func healed(t *testing.T, c *ownCluster, what string) {
	t.Helper()
	eventually(t, 30*time.Second, what+" is healed", func() error {
		if o := c.admin.run(t, "log", "verify"); o.code != 0 {
			return errors.New(o.errors)
		}
		return nil
	})
}

// flip changes one bit of a file, where it lies.
func flip(t *testing.T, path string, offset int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, int64(offset)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, int64(offset)); err != nil {
		t.Fatal(err)
	}
}

func findsLeaf(t *testing.T, c *ownCluster, n *member, r region, when string) {
	t.Helper()
	o := c.admin.run(t, "log", "verify", "-o", "json")
	if o.code != 1 {
		t.Errorf("%s changed %s: exit %d\n%s%s", r.name, when, o.code, o.out, o.errors)
		return
	}
	var verdict struct {
		OK     bool    `json:"ok"`
		Node   string  `json:"node"`
		Leaf   *uint64 `json:"leaf"`
		Reason string  `json:"reason"`
	}
	o.decode(t, &verdict)
	if verdict.OK || verdict.Node != n.id || verdict.Leaf == nil || *verdict.Leaf != r.leaf {
		t.Errorf("%s of leaf %d changed %s: %s", r.name, r.leaf, when, o.out)
	}
}
