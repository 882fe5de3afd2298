package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Raft's transport decodes MessagePack as it comes, without a limit of size or time. Measured with go-msgpack v2.1.5: a declared length
// alone costs nothing, it reads in pieces of 256 KiB; but it reads as long as something comes, copies what it has for each piece, and
// makes 162 MiB of 1 MiB of empty entries. So the bytes of a raft connection are followed before raft gets them: by their structure
// only, without keeping any.

const (
	// raftEntries is how many entries a leader sends at once; raft's own default.
	raftEntries = 64
	// maxRaftAppend bounds AppendEntries: a full one with the largest entries.
	maxRaftAppend = raftEntries*(MaxEntryBytes+raftEntrySlack) + maxRaftSmall
	// maxRaftSmall bounds every other message and an answer: names, numbers, and a configuration of every node there can be.
	maxRaftSmall = 256 << 10
	// raftEntrySlack is what an entry needs beside its data, as a structure in memory too.
	raftEntrySlack = 512
	// maxRaftValue bounds one text or byte string: go-msgpack copies a long one again for every 256 KiB of it.
	maxRaftValue = MaxEntryBytes + raftEntrySlack
	// maxRaftItems bounds a list or a map: four times the entries of one message, so that a later release may send more.
	maxRaftItems = 4 * raftEntries
	// maxRaftDepth: a message holds a list, which holds entries.
	maxRaftDepth = 4
	// raftItemCost is what an element of a list or map costs in memory at least.
	raftItemCost = 64
)

// Kinds of raft's requests, its first byte (raft v1.7.3, net_transport.go).
const (
	raftAppendEntries   = 0
	raftInstallSnapshot = 2
	raftKinds           = 5
)

// errRaftMessage: what a peer sends is no message of raft's, or one that is too large.
var errRaftMessage = errors.New("bad raft message")

// raftWire follows one direction of a raft connection. Requests are a byte for the kind and a map; after that of
// InstallSnapshot comes the snapshot itself, of the size that the map names. Answers are values without a kind.
type raftWire struct {
	requests bool
	charge   func(int) error // told of the memory that the message may cost; nil: nobody is

	state wireState
	kind  byte
	cost  int // of this message so far
	skip  uint64
	tag   byte
	num   [8]byte // of a length or a number
	have  int
	want  int
	depth int
	left  [maxRaftDepth]int // values that are still to come, by depth
	isMap [maxRaftDepth]bool

	text    []byte // of the key that is being read; at most len("Size")+1 bytes of it
	keyText bool   // the value being read is a key of the outermost map
	sizeKey bool   // the last key was Size
	sizes   int    // how often
	size    uint64
}

type wireState uint8

const (
	wireStart    wireState = iota // between messages
	wireTag                       // a value begins
	wireLength                    // its length is coming
	wireNumber                    // a number's bytes are coming
	wirePayload                   // skip bytes of a value
	wireSnapshot                  // skip bytes of a snapshot
)

const sizeField = "Size" // of raft.InstallSnapshotRequest

// within reports whether the connection may not end here.
func (w *raftWire) within() bool { return w.state != wireStart }

// feed takes the next bytes. After an error, which is errRaftMessage or charge's, nothing more may be fed.
func (w *raftWire) feed(b []byte) error {
	for len(b) > 0 {
		switch w.state {
		case wirePayload, wireSnapshot:
			n := int(min(uint64(len(b)), w.skip))
			w.note(b[:n])
			w.skip -= uint64(n)
			b = b[n:]
			if w.skip == 0 {
				if err := w.done(); err != nil {
					return err
				}
			}
		case wireLength, wireNumber:
			n := copy(w.num[w.have:w.want], b)
			w.have += n
			b = b[n:]
			if w.have == w.want {
				if err := w.counted(); err != nil {
					return err
				}
			}
		default:
			first := b[0]
			b = b[1:]
			if err := w.begin(first); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin takes the first byte of a message or of a value.
func (w *raftWire) begin(b byte) error {
	if w.state == wireStart {
		w.cost, w.sizes, w.size, w.sizeKey, w.depth = 0, 0, 0, false, 0
		w.state = wireTag
		if w.requests {
			if w.kind = b; b >= raftKinds {
				return fmt.Errorf("%w: kind %d", errRaftMessage, b)
			}
			return nil
		}
	}
	w.keyText = w.requests && w.depth == 1 && w.isMap[0] && w.left[0]%2 == 0
	w.text = w.text[:0]
	return w.value(b)
}

// pay charges memory to the message.
func (w *raftWire) pay(n uint64) error {
	limit := maxRaftSmall
	if w.requests && w.kind == raftAppendEntries {
		limit = maxRaftAppend
	}
	if n > uint64(limit-w.cost) {
		return fmt.Errorf("%w: more than %d bytes", errRaftMessage, limit)
	}
	w.cost += int(n)
	if w.charge != nil {
		return w.charge(int(n))
	}
	return nil
}

// value takes the tag of a value (MessagePack specification, "Formats").
func (w *raftWire) value(tag byte) error {
	w.tag = tag
	isMap := tag >= 0x80 && tag <= 0x8f || tag == 0xde || tag == 0xdf
	isText := tag >= 0xa0 && tag <= 0xbf || tag >= 0xd9 && tag <= 0xdb
	switch {
	case w.requests && w.depth == 0 && !isMap:
		return fmt.Errorf("%w: it is no map", errRaftMessage)
	case w.keyText && !isText:
		return fmt.Errorf("%w: a field without a name", errRaftMessage)
	}
	switch {
	case tag <= 0x7f:
		return w.number(uint64(tag))
	case tag <= 0x8f:
		return w.items(uint64(tag&0x0f), true)
	case tag <= 0x9f:
		return w.items(uint64(tag&0x0f), false)
	case tag <= 0xbf:
		return w.payload(uint64(tag & 0x1f))
	case tag == 0xc1:
		return fmt.Errorf("%w: tag %#x", errRaftMessage, tag)
	case tag == 0xc0, tag == 0xc2, tag == 0xc3, tag >= 0xe0: // nil, false, true, a small negative number
		return w.plain()
	case tag >= 0xca && tag <= 0xd3: // floats, numbers
		width := [...]int{4, 8, 1, 2, 4, 8, 1, 2, 4, 8}[tag-0xca]
		return w.await(wireNumber, width)
	case tag >= 0xd4 && tag <= 0xd8: // extensions of 1, 2, 4, 8, 16 bytes and a byte for the type
		return w.payload(1<<(tag-0xd4) + 1)
	default: // 8, 16 or 32 bits of length
		width := map[byte]int{0xc4: 1, 0xc5: 2, 0xc6: 4, 0xc7: 1, 0xc8: 2, 0xc9: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}[tag]
		return w.await(wireLength, width)
	}
}

func (w *raftWire) await(s wireState, width int) error {
	w.state, w.have, w.want = s, 0, width
	return nil
}

// counted goes on when a length or a number is complete.
func (w *raftWire) counted() error {
	var full [8]byte
	copy(full[8-w.want:], w.num[:w.want])
	n := binary.BigEndian.Uint64(full[:])
	if w.state == wireNumber {
		if w.tag <= 0xcb || w.tag >= 0xd0 && w.num[0] >= 0x80 { // a float, or negative
			return w.plain()
		}
		return w.number(n)
	}
	switch w.tag {
	case 0xdc, 0xdd:
		return w.items(n, false)
	case 0xde, 0xdf:
		return w.items(n, true)
	case 0xc7, 0xc8, 0xc9:
		n++ // the extension's type
	}
	return w.payload(n)
}

// number is a value that is not negative; plain one that names no size.
func (w *raftWire) number(n uint64) error {
	if w.sizeKey && w.depth == 1 {
		w.size, w.sizeKey = n, false
	}
	return w.plain()
}

func (w *raftWire) plain() error {
	if w.sizeKey && w.depth == 1 && w.left[0]%2 == 1 {
		return fmt.Errorf("%w: its size is no number", errRaftMessage)
	}
	if err := w.pay(1); err != nil {
		return err
	}
	return w.done()
}

// payload is a text, bytes or an extension. Its whole length is charged now, so that no message begins that could not end.
func (w *raftWire) payload(n uint64) error {
	if w.sizeKey && w.depth == 1 {
		return fmt.Errorf("%w: its size is no number", errRaftMessage)
	}
	if n > maxRaftValue {
		return fmt.Errorf("%w: a value of %d bytes, at most %d", errRaftMessage, n, maxRaftValue)
	}
	if err := w.pay(n + 1); err != nil {
		return err
	}
	w.state, w.skip = wirePayload, n
	if n == 0 {
		return w.done()
	}
	return nil
}

// note keeps the beginning of a field's name.
func (w *raftWire) note(b []byte) {
	if w.keyText && w.state == wirePayload && len(w.text) <= len(sizeField) {
		w.text = append(w.text, b[:min(len(b), len(sizeField)+1-len(w.text))]...)
	}
}

// items is a list or a map.
func (w *raftWire) items(n uint64, isMap bool) error {
	switch {
	case n > maxRaftItems:
		return fmt.Errorf("%w: a list of %d, at most %d", errRaftMessage, n, maxRaftItems)
	case w.depth == maxRaftDepth:
		return fmt.Errorf("%w: nested more than %d deep", errRaftMessage, maxRaftDepth)
	case w.sizeKey && w.depth == 1:
		return fmt.Errorf("%w: its size is no number", errRaftMessage)
	}
	if isMap {
		n *= 2
	}
	if err := w.pay(n*raftItemCost + 1); err != nil {
		return err
	}
	if n == 0 {
		return w.done()
	}
	w.left[w.depth], w.isMap[w.depth] = int(n), isMap
	w.depth++
	w.state = wireTag
	return nil
}

// done ends a value, and what ends with it.
func (w *raftWire) done() error {
	if w.state == wireSnapshot {
		return w.end()
	}
	if w.keyText {
		if w.sizeKey = w.kind == raftInstallSnapshot && string(w.text) == sizeField; w.sizeKey {
			if w.sizes++; w.sizes > 1 {
				return fmt.Errorf("%w: two sizes", errRaftMessage)
			}
		}
		w.keyText = false
	}
	for w.depth > 0 {
		if w.left[w.depth-1]--; w.left[w.depth-1] > 0 {
			w.state = wireTag
			return nil
		}
		w.depth--
	}
	if w.requests && w.kind == raftInstallSnapshot && w.size > 0 {
		w.state, w.skip = wireSnapshot, w.size
		return nil
	}
	return w.end()
}

// end of a message: its memory is raft's no more.
func (w *raftWire) end() error {
	w.state = wireStart
	if w.charge != nil {
		return w.charge(-w.cost)
	}
	return nil
}
