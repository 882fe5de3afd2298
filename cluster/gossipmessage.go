package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// memberlist v0.5.4 decodes what comes from the network before and after it has decrypted it, logs each failure, and panics on some
// messages that only holders of the key can make (a negative count of nodes, four version numbers instead of six). Here its messages
// are opened and looked at first, so that its decoders see only what was sealed with the cluster's key and has a sane form.

// Types of messages (memberlist v0.5.4, net.go).
const (
	gossipPing      = 0
	gossipDead      = 5
	gossipPushPull  = 6
	gossipCompound  = 7
	gossipEncrypted = 10
	gossipNack      = 11
	gossipCRC       = 12
	gossipLabel     = 244
)

const (
	// maxGossipStream bounds a message over TCP: the state of 64 nodes with 4 KiB each, where some 300 bytes are usual.
	maxGossipStream = 256 << 10
	// maxGossipNodes bounds the nodes in it.
	maxGossipNodes = 1024
	// gossipVersions is how many version numbers a node tells, if any.
	gossipVersions = 6
	// sealedVersion is the one encryption format that is spoken: AES-GCM, nonce of 12 bytes, tag of 16, no padding.
	sealedVersion = 1
	// gossipDepth bounds values within values: a map of a list is the deepest.
	gossipDepth = 4
)

// errGossip: a message of the gossip port that is refused.
var errGossip = errors.New("bad gossip message")

// gossipSeal opens messages.
type gossipSeal struct {
	aead  cipher.AEAD
	label string
}

func newGossipSeal(key []byte, label string) (*gossipSeal, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &gossipSeal{aead, label}, nil
}

// unlabel takes off the label, which must be the cluster's.
func (s *gossipSeal) unlabel(b []byte) ([]byte, error) {
	if len(b) < 2 || b[0] != gossipLabel {
		return nil, fmt.Errorf("%w: it has no cluster's label", errGossip)
	}
	n := int(b[1])
	if len(b) < 2+n {
		return nil, fmt.Errorf("%w: truncated", errGossip)
	}
	if label := b[2 : 2+n]; string(label) != s.label {
		return nil, fmt.Errorf("%w: it is of the cluster %q", errGossip, label)
	}
	return b[2+n:], nil
}

// open decrypts. bound is what was authenticated beside the text.
func (s *gossipSeal) open(sealed, bound []byte) ([]byte, error) {
	switch {
	case len(sealed) < 1+s.aead.NonceSize()+s.aead.Overhead():
		return nil, fmt.Errorf("%w: truncated, or not encrypted", errGossip)
	case sealed[0] != sealedVersion:
		return nil, fmt.Errorf("%w: not encrypted, or with format %d", errGossip, sealed[0])
	}
	nonce, text := sealed[1:1+s.aead.NonceSize()], sealed[1+s.aead.NonceSize():]
	plain, err := s.aead.Open(nil, nonce, text, bound)
	if err != nil {
		return nil, fmt.Errorf("%w: not encrypted with the cluster's gossip key", errGossip)
	}
	return plain, nil
}

// packet checks a datagram.
func (s *gossipSeal) packet(b []byte) error {
	sealed, err := s.unlabel(b)
	if err != nil {
		return err
	}
	plain, err := s.open(sealed, []byte(s.label))
	if err != nil {
		return err
	}
	if len(plain) >= 5 && plain[0] == gossipCRC {
		if crc32.ChecksumIEEE(plain[5:]) != binary.BigEndian.Uint32(plain[1:5]) {
			return fmt.Errorf("%w: its checksum is wrong", errGossip)
		}
		plain = plain[5:]
	}
	if len(plain) > 0 && plain[0] == gossipCompound {
		return compound(plain[1:])
	}
	return gossipPart(plain)
}

// compound is a count, as many lengths of 16 bits, and the parts.
func compound(b []byte) error {
	if len(b) < 1 || len(b) < 1+2*int(b[0]) {
		return fmt.Errorf("%w: truncated", errGossip)
	}
	count := int(b[0])
	lengths, b := b[1:1+2*count], b[1+2*count:]
	for i := range count {
		n := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if n > len(b) {
			return fmt.Errorf("%w: truncated", errGossip)
		}
		if err := gossipPart(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// gossipPart is one message: its type and one map. Compressed ones are refused, since nobody here sends them and a few bytes can
// become gigabytes; so are users' messages, which nobody here reads.
func gossipPart(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it is empty", errGossip)
	}
	if kind := b[0]; kind > gossipDead && kind != gossipNack {
		return fmt.Errorf("%w: type %d", errGossip, kind)
	}
	p := packed{b[1:]}
	_, err := p.fields(gossipDepth)
	return err
}

// stream checks what was decrypted of a stream's message.
func (s *gossipSeal) stream(plain []byte) error {
	switch {
	case len(plain) == 0:
		return fmt.Errorf("%w: it is empty", errGossip)
	case plain[0] == gossipPing:
		return gossipPart(plain)
	case plain[0] != gossipPushPull:
		return fmt.Errorf("%w: type %d", errGossip, plain[0])
	}
	p := packed{plain[1:]}
	header, err := p.fields(gossipDepth)
	if err != nil {
		return err
	}
	if header["Nodes"] > maxGossipNodes || header["UserStateLen"] != 0 {
		return fmt.Errorf("%w: %d nodes (at most %d), %d bytes of other state (none is known)", errGossip, header["Nodes"], maxGossipNodes, header["UserStateLen"])
	}
	for range header["Nodes"] {
		if _, err := p.fields(gossipDepth); err != nil {
			return err
		}
	}
	if len(p.b) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errGossip, len(p.b))
	}
	return nil
}

// packed is MessagePack that is looked at, not decoded.
type packed struct{ b []byte }

// item is a value: a number, or what has a length. Lists and maps are followed by their elements.
type item struct {
	n      uint64 // the number, or how many bytes or elements
	bytes  []byte // of a text or bytes
	number bool   // not negative
	list   bool
	dict   bool
}

// take cuts off n bytes.
func (p *packed) take(n uint64) ([]byte, error) {
	if n > uint64(len(p.b)) {
		return nil, fmt.Errorf("%w: truncated: %d bytes are declared, %d are there", errGossip, n, len(p.b))
	}
	cut := p.b[:n]
	p.b = p.b[n:]
	return cut, nil
}

func (p *packed) uint(width uint64) (uint64, error) {
	cut, err := p.take(width)
	var n uint64
	for _, b := range cut {
		n = n<<8 | uint64(b)
	}
	return n, err
}

// next reads one value (MessagePack specification, "Formats"), but not the elements of a list or map.
func (p *packed) next() (item, error) {
	first, err := p.uint(1)
	if err != nil {
		return item{}, err
	}
	tag := byte(first)
	sized := func(width uint64) (item, error) {
		n, err := p.uint(width)
		return item{n: n}, err
	}
	text := func(i item, err error) (item, error) {
		if err == nil {
			i.bytes, err = p.take(i.n)
		}
		return i, err
	}
	switch {
	case tag <= 0x7f:
		return item{n: first, number: true}, nil
	case tag <= 0x8f:
		return item{n: first & 0x0f, dict: true}, nil
	case tag <= 0x9f:
		return item{n: first & 0x0f, list: true}, nil
	case tag <= 0xbf:
		return text(item{n: first & 0x1f}, nil)
	case tag == 0xc0, tag == 0xc2, tag == 0xc3, tag >= 0xe0:
		return item{}, nil
	case tag >= 0xc4 && tag <= 0xc6:
		return text(sized(1 << (tag - 0xc4)))
	case tag >= 0xcc && tag <= 0xcf:
		i, err := sized(1 << (tag - 0xcc))
		i.number = true
		return i, err
	case tag >= 0xd0 && tag <= 0xd3:
		width := uint64(1) << (tag - 0xd0)
		i, err := sized(width)
		i.number = i.n>>(8*width-1) == 0
		return i, err
	case tag >= 0xd9 && tag <= 0xdb:
		return text(sized(1 << (tag - 0xd9)))
	case tag == 0xdc, tag == 0xdd:
		i, err := sized(2 << (tag - 0xdc))
		i.list = true
		return i, err
	case tag == 0xde, tag == 0xdf:
		i, err := sized(2 << (tag - 0xde))
		i.dict = true
		return i, err
	default: // extensions and fractions are in no message
		return item{}, fmt.Errorf("%w: tag %#x", errGossip, tag)
	}
}

// skip goes over the elements of a value.
func (p *packed) skip(i item, depth int) error {
	n := i.n
	switch {
	case !i.list && !i.dict:
		return nil
	case depth == 0 || n > uint64(len(p.b)): // an element has a byte at least
		return fmt.Errorf("%w: a list of %d, too deep or too long", errGossip, n)
	case i.dict:
		n *= 2
	}
	for range n {
		e, err := p.next()
		if err == nil {
			err = p.skip(e, depth-1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fields goes over a map, whose keys are texts and differ, and returns its numbers. A negative number is refused, because memberlist
// has none; and so is a list of version numbers that is not complete.
func (p *packed) fields(depth int) (map[string]uint64, error) {
	m, err := p.next()
	if err != nil {
		return nil, err
	}
	if !m.dict || m.n > uint64(len(p.b)) {
		return nil, fmt.Errorf("%w: it is no map", errGossip)
	}
	numbers := make(map[string]uint64)
	for range m.n {
		key, err := p.next()
		if err != nil {
			return nil, err
		}
		name := string(key.bytes)
		if _, again := numbers[name]; again || key.bytes == nil {
			return nil, fmt.Errorf("%w: a field without a name, or twice", errGossip)
		}
		value, err := p.field(name, depth)
		if err != nil {
			return nil, err
		}
		numbers[name] = value
	}
	return numbers, nil
}

func (p *packed) field(name string, depth int) (uint64, error) {
	v, err := p.next()
	if err != nil {
		return 0, err
	}
	switch name {
	case "Nodes", "UserStateLen":
		if !v.number {
			return 0, fmt.Errorf("%w: %s is no count", errGossip, name)
		}
	case "Vsn":
		if v.n != 0 && v.n < gossipVersions || v.number || v.dict {
			return 0, fmt.Errorf("%w: %d version numbers, want %d", errGossip, v.n, gossipVersions)
		}
	}
	if err := p.skip(v, depth-1); err != nil || !v.number {
		return 0, err
	}
	return v.n, nil
}
