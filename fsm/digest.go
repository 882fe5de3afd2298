package fsm

import (
	"crypto/sha256"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// Digest is SHA-256 over the whole state, the applied index included, and equal on every node that applied the same entries.
// It is computed when first asked for, and kept in the state.
//
// It hashes the records of a snapshot in their order, but not their protobuf bytes, which are canonical only within one
// build of the library: nodes of two releases must agree. See digestMessage for the form. From feature level 2 on a key goes
// in as the hash of its form, and the hashes are remembered: the time is proportional to the keys that changed since the last
// digest of this machine, and to reading 32 bytes for each of the others.
func (s *State) Digest() [32]byte {
	s.digestOnce.Do(func() {
		if s.FeatureLevel() < levelOfDigest2 {
			s.digest = s.digest1()
		} else {
			s.digest = s.digest2()
		}
	})
	return s.digest
}

const levelOfDigest2 = 2

func (s *State) digest1() (sum [32]byte) {
	h := sha256.New()
	h.Write(domain("state digest"))
	var form canonical                          // of one record at a time
	_ = s.records(func(r *fsmpb.Record) error { // neither hashing nor this function can fail
		form = digestMessage(form[:0], r.ProtoReflect())
		h.Write(form)
		return nil
	})
	h.Sum(sum[:0])
	return sum
}

func (s *State) digest2() (sum [32]byte) {
	h := sha256.New()
	h.Write(domain("state digest 2"))
	var form canonical
	other := func(r *fsmpb.Record) error {
		form = digestMessage(form[:0], r.ProtoReflect())
		h.Write(form)
		return nil
	}
	w := &recordWriter{yield: other}
	w.put(&fsmpb.Record{Kind: &fsmpb.Record_Header{Header: headerToWire(s)}})
	s.beforeKeys(w)
	s.parts.each(s, func(part *[32]byte) { h.Write(part[:]) })
	s.afterKeys(w)
	h.Sum(sum[:0])
	return sum
}

// keyParts remembers the hash of each key's form, in the order of the keys. A record that is the same pointer is the same record, so
// what has to be hashed anew is what changed. It is shared by the states of a machine, and holds nothing before the first digest.
type keyParts struct {
	mu  sync.Mutex
	all []keyPart
}

type keyPart struct {
	key  *Key
	part [32]byte
}

// each yields the parts of a state's keys in order. The hashes of an older state are of use for a newer one and the other way round.
func (p *keyParts) each(s *State, yield func(*[32]byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old, fresh := p.all, make([]keyPart, 0, s.keys.Len())
	var form canonical
	s.keys.Scan(func(name KeyName, k *Key) bool {
		for len(old) > 0 && old[0].key.Name < name {
			old = old[1:]
		}
		if len(old) > 0 && old[0].key == k {
			fresh = append(fresh, old[0])
		} else {
			form = digestMessage(form[:0], keyToWire(*k).ProtoReflect())
			fresh = append(fresh, keyPart{k, sha256.Sum256(form)})
		}
		yield(&fresh[len(fresh)-1].part)
		return true
	})
	p.all = fresh
}

// digestMessage appends the populated fields in the order of their numbers, each behind its number, and closes with number
// 0. A field that is not populated is left out, so that a field added later does not change the digest of states without it.
func digestMessage(b canonical, m protoreflect.Message) canonical {
	fields := m.Descriptor().Fields() // declared in ascending order, which a test holds
	for i := range fields.Len() {
		fd := fields.Get(i)
		if !m.Has(fd) {
			continue
		}
		b = b.uint32(uint32(fd.Number()))
		if !fd.IsList() {
			b = digestValue(b, fd, m.Get(fd))
			continue
		}
		list := m.Get(fd).List()
		b = b.uint32(uint32(list.Len()))
		for j := range list.Len() {
			b = digestValue(b, fd, list.Get(j))
		}
	}
	return b.uint32(0)
}

// digestValue appends one value: messages as above, integers in eight bytes, texts and bytes behind their length.
func digestValue(b canonical, fd protoreflect.FieldDescriptor, v protoreflect.Value) canonical {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return digestMessage(b, v.Message())
	case protoreflect.StringKind:
		return b.text(v.String())
	case protoreflect.BytesKind:
		return b.bytes(v.Bytes())
	case protoreflect.BoolKind:
		return b.uint32(1) // a populated one is true
	case protoreflect.Int64Kind:
		return b.uint64(uint64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return b.uint64(v.Uint())
	default:
		panic("fsm: no canonical form for " + string(fd.FullName())) // a test walks every field of every record
	}
}
