package fsm

import (
	"cmp"
	"slices"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// restore adds one record of a snapshot to the state. It checks what the rest of the package relies on, not every limit: the
// checksum says that a machine wrote it.
func (s *restoration) restore(record *fsmpb.Record, first bool) error {
	header, isHeader := record.GetKind().(*fsmpb.Record_Header)
	if first != isHeader {
		return invalid("the header is the first record, and only that")
	}
	switch k := record.GetKind().(type) {
	case *fsmpb.Record_Header:
		return s.restoreHeader(header.Header)
	case *fsmpb.Record_Node:
		n := nodeFromWire(k.Node)
		s.countDrained(n)
		return placed(s.nodes.Set(n.ID, &n))
	case *fsmpb.Record_Token:
		t := tokenFromWire(k.Token)
		if _, twice := s.tokens.Get(t.ID); twice {
			return placed(t, true)
		}
		s.setToken(t)
	case *fsmpb.Record_Certificate:
		c := certificateFromWire(k.Certificate)
		return placed(s.certificates.Set(c.Serial, &c))
	case *fsmpb.Record_Roster:
		s.rosters = append(s.rosters, rosterFromWire(k.Roster))
	case *fsmpb.Record_Master:
		m := masterFromWire(k.Master)
		s.master = &m
	case *fsmpb.Record_Ceremony:
		return s.restoreCeremony(ceremonyFromWire(k.Ceremony))
	case *fsmpb.Record_Key:
		key := keyFromWire(k.Key)
		return s.restoreKey(&key)
	case *fsmpb.Record_Use:
		if err := s.index(); err != nil {
			return err
		}
		return s.restoreUse(k.Use)
	case *fsmpb.Record_Ledger:
		return s.restoreLedger(k.Ledger)
	case *fsmpb.Record_Barrier:
		b := barrierFromWire(k.Barrier)
		return placed(s.barriers.Set(b.Index, b))
	case *fsmpb.Record_Request:
		return s.restoreRequest(k.Request)
	case *fsmpb.Record_Class:
		return s.restoreClass(classFromWire(k.Class))
	default:
		return invalid("it is empty")
	}
	return nil
}

// placed refuses what stands twice.
func placed[T any](_ T, replaced bool) error {
	if replaced {
		return invalid("it stands twice")
	}
	return nil
}

func (s *State) restoreHeader(h *fsmpb.Header) error {
	hashes := make([][32]byte, len(h.GetFrontier().GetHashes()))
	for i, b := range h.GetFrontier().GetHashes() {
		if len(b) != hashSize {
			return invalid("a hash of %d bytes", len(b))
		}
		hashes[i] = [32]byte(b)
	}
	tree, err := NewFrontier(h.GetFrontier().GetSize(), hashes)
	if err != nil {
		return err
	}
	s.applied, s.now, s.restriction, s.tree = h.GetApplied(), fromMillis(h.GetTimeMs()), h.GetLastRestriction(), tree
	s.cluster, s.leftAvailable = clusterFromWire(h.GetCluster()), h.GetLeftAvailable()
	if s.cluster.FeatureLevel > FeatureLevel {
		return invalid("it is of feature level %d, and this release understands %d: upgrade this node", s.cluster.FeatureLevel, FeatureLevel)
	}
	return nil
}

func (s *State) restoreCeremony(c Ceremony) error {
	if len(s.ceremonies) >= MaxCeremonies {
		return invalid("more than %d ceremonies", MaxCeremonies)
	}
	dealt := c.Phase == PhaseAcknowledge && c.Purpose == PurposeGenesis
	if dealt && (c.Deal == nil || len(c.Commitments) != len(c.Roster.Custodians)) {
		return invalid("ceremony %s waits for acknowledgements of no deal", c.ID)
	}
	s.ceremonies = append(s.ceremonies, c)
	return nil
}

// restoreClass: classes come before the keys that need them.
func (s *State) restoreClass(c Class) error {
	if c.Revision == 0 || s.ClassRecord(c.Name) != nil {
		return invalid("class %q is built in or stands twice", c.Name)
	}
	s.classes.Set(c.Name, &c)
	return nil
}

func (s *State) restoreRequest(w *fsmpb.Request) error {
	if _, ok := uuidTime(w.GetId()); !ok || len(w.GetHash()) != hashSize {
		return invalid("a request without an id or a hash")
	}
	key := newRequestKey(RequestID(w.GetId()), Actor(w.GetActor()))
	s.countRequest(key.actor())
	return placed(s.requests.Load(key, &request{hash: hash32(w.GetHash()), result: resultFromWire(w.GetResult())}))
}

// coherent checks what no single record shows.
func (s *State) coherent() error {
	ascending := slices.IsSortedFunc(s.rosters, func(a, b Roster) int { return cmp.Compare(a.Version, b.Version) })
	generation := uint32(0)
	if s.master != nil {
		generation = s.master.Generation
	}
	if !ascending || generation != s.cluster.MasterGeneration || (s.master == nil) != (len(s.rosters) == 0) {
		return snapshotError("the master and the rosters do not fit together")
	}
	for _, b := range s.barriers.Values() {
		if name, isKey := cutKey(b.Subject); isKey {
			if _, ok := s.keys.Get(name); !ok {
				return snapshotError("a barrier names a key that is not there")
			}
		}
	}
	return nil
}

func headerToWire(s *State) *fsmpb.Header {
	return &fsmpb.Header{
		Applied: s.applied, TimeMs: toMillis(s.now), Cluster: clusterToWire(s.cluster), LastRestriction: s.restriction, LeftAvailable: s.leftAvailable,
		Frontier: &fsmpb.Frontier{
			Size: s.tree.Size(), Hashes: mapped(s.tree.Hashes(), func(h [32]byte) []byte { return h[:] }),
		},
	}
}

func barrierToWire(b PendingBarrier) *fsmpb.PendingBarrier {
	return &fsmpb.PendingBarrier{Index: b.Index, Subject: b.Subject, AtMs: toMillis(b.At)}
}

func barrierFromWire(w *fsmpb.PendingBarrier) PendingBarrier {
	return PendingBarrier{Index: w.GetIndex(), Subject: w.GetSubject(), At: fromMillis(w.GetAtMs())}
}

func requestToWire(key requestKey, r *request) *fsmpb.Request {
	return &fsmpb.Request{Id: string(key.id()), Actor: string(key.actor()), Hash: r.hash[:], Result: resultToWire(r.result)}
}

func resultToWire(r Result) *fsmpb.Result {
	return &fsmpb.Result{
		Code: uint32(r.Code), Message: r.Message, Index: r.Index, KeyId: string(r.KeyID), Version: uint32(r.Version),
		Ceremony: string(r.Ceremony), Barrier: r.Barrier,
	}
}

func resultFromWire(w *fsmpb.Result) Result {
	return Result{
		Code: Code(w.GetCode()), Message: w.GetMessage(), Index: w.GetIndex(), KeyID: KeyID(w.GetKeyId()), Version: Version(w.GetVersion()),
		Ceremony: CeremonyID(w.GetCeremony()), Barrier: w.GetBarrier(),
	}
}
