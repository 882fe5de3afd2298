package fsm

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"
)

// State is the whole state at one index. A published one is immutable: any goroutine may read it without a lock, for as long
// as it likes, while the Machine goes on. What its methods return is safe to keep; slices in it must not be modified.
//
// Maps are copy-on-write B-trees that share their nodes between states; slices and what pointers lead to are never modified
// in place, only replaced. What states do share is what only grows, and is true of all of them: the places of names (keyIndex), and hashes (keyParts).
type State struct {
	applied     uint64
	now         time.Time
	cluster     Cluster
	restriction uint64
	// leftAvailable is the index of the last restriction that took keys out of LeaseAvailable; see LeaseOf.
	leftAvailable uint64
	drained       int // derived: how many of nodes are not of the serving set
	tree          Frontier

	nodes        *btree.Map[NodeID, *Node]
	tokens       *btree.Map[string, *JoinToken]
	certificates *btree.Map[string, *Certificate]
	keys         *btree.Map[KeyName, *Key]
	byName       *keyIndex // derived: of keys
	names        *btree.Map[KeyID, KeyName]
	barriers     *btree.Map[uint64, PendingBarrier]
	requests     *btree.Map[requestKey, *request]
	perActor     *btree.Map[Actor, int] // how many of requests are whose
	classes      *btree.Map[string, *Class]
	perClass     *btree.Map[string, int] // derived: how many of keys are of which class
	schedule     *btree.BTreeG[dueEntry] // derived: dates of keys and tokens
	uses         *btree.Map[KeyID, *Use]
	worn         *btree.Map[KeyID, Version] // derived: of uses, what nears its bound
	ledger       useLedger

	rosters    []Roster   // ascending
	master     *Master    // nil before genesis
	ceremonies []Ceremony // in the order they began, at most MaxCeremonies

	form       canonical // of the last event, kept for its room; only the machine's working copy has one
	parts      *keyParts // shared with the other states of the machine
	digestOnce sync.Once
	copying    sync.Mutex // of Preview: copying marks both trees
	digest     [32]byte
}

func newState() *State {
	return &State{
		nodes: new(btree.Map[NodeID, *Node]), tokens: new(btree.Map[string, *JoinToken]),
		certificates: new(btree.Map[string, *Certificate]), keys: new(btree.Map[KeyName, *Key]), byName: newKeyIndex(),
		names: new(btree.Map[KeyID, KeyName]), barriers: new(btree.Map[uint64, PendingBarrier]),
		requests: new(btree.Map[requestKey, *request]), perActor: new(btree.Map[Actor, int]), parts: new(keyParts),
		classes: new(btree.Map[string, *Class]), perClass: new(btree.Map[string, int]), schedule: newSchedule(),
		uses: new(btree.Map[KeyID, *Use]), worn: new(btree.Map[KeyID, Version]),
	}
}

// copy costs the same however much the state holds.
func (s *State) copy() *State {
	return &State{
		applied: s.applied, now: s.now, cluster: s.cluster, restriction: s.restriction, leftAvailable: s.leftAvailable, drained: s.drained, tree: s.tree,
		nodes: s.nodes.Copy(), tokens: s.tokens.Copy(), certificates: s.certificates.Copy(), keys: s.keys.Copy(), byName: s.byName.copy(),
		names: s.names.Copy(), barriers: s.barriers.Copy(), requests: s.requests.Copy(), perActor: s.perActor.Copy(),
		classes: s.classes.Copy(), perClass: s.perClass.Copy(), schedule: s.schedule.Copy(),
		uses: s.uses.Copy(), worn: s.worn.Copy(), ledger: s.ledger,
		rosters: s.rosters, master: s.master, ceremonies: s.ceremonies, parts: s.parts,
	}
}

// Applied is the index of the last entry that the state reflects.
func (s *State) Applied() uint64 { return s.applied }

// Time is the log's time: the greatest stamp so far. It never goes back.
func (s *State) Time() time.Time { return s.now }

// Initialised reports whether InitCluster was applied.
func (s *State) Initialised() bool { return s.cluster.ID != "" }

// Cluster is what InitCluster fixed and what became of it; zero before.
func (s *State) Cluster() Cluster { return s.cluster }

// ClusterID is Cluster().ID.
func (s *State) ClusterID() string { return s.cluster.ID }

// Tree is the head of the lifecycle log.
func (s *State) Tree() Tree { return Tree{Size: s.tree.Size(), Root: s.tree.Root()} }

// Frontier is what is needed to continue the lifecycle log's tree.
func (s *State) Frontier() Frontier { return s.tree }

// Node finds a member.
func (s *State) Node(id NodeID) (Node, bool) { return deref(s.nodes.Get(id)) }

// Nodes lists the members by id.
func (s *State) Nodes() []Node {
	all := make([]Node, 0, s.nodes.Len())
	for _, n := range s.nodes.Values() {
		all = append(all, *n)
	}
	return all
}

// JoinToken finds a token by its id. Expired ones are forgotten when a new one is made.
func (s *State) JoinToken(id string) (JoinToken, bool) { return deref(s.tokens.Get(id)) }

// Certificate finds a client certificate by its serial number in lower-case hex.
func (s *State) Certificate(serial string) (Certificate, bool) {
	return deref(s.certificates.Get(serial))
}

// Certificates lists by serial number what comes after a serial ("": from the start), at most limit (0 or less: all).
func (s *State) Certificates(after string, limit int) []Certificate {
	var page []Certificate
	s.certificates.Ascend(after, func(serial string, c *Certificate) bool {
		if serial != after {
			page = append(page, *c)
		}
		return limit <= 0 || len(page) < limit
	})
	return page
}

// Roster is the one in force; false before genesis.
func (s *State) Roster() (Roster, bool) {
	if len(s.rosters) == 0 {
		return Roster{}, false
	}
	return s.rosters[len(s.rosters)-1], true
}

// Rosters is the chain from the genesis roster to the one in force.
func (s *State) Rosters() []Roster { return slices.Clone(s.rosters) }

// Master is the generation in force; false before genesis.
func (s *State) Master() (Master, bool) {
	if s.master == nil {
		return Master{}, false
	}
	return *s.master, true
}

// Ceremony finds one of the last MaxCeremonies.
func (s *State) Ceremony(id CeremonyID) (Ceremony, bool) {
	return s.lastCeremony(func(c Ceremony) bool { return c.ID == id })
}

// LatestCeremony is the one that began last, of a purpose or ("") of any.
func (s *State) LatestCeremony(p Purpose) (Ceremony, bool) {
	return s.lastCeremony(func(c Ceremony) bool { return p == "" || c.Purpose == p })
}

// OpenCeremony is the one of a purpose ("": of any, the last begun) that is neither done nor aborted nor expired by log time.
func (s *State) OpenCeremony(p Purpose) (Ceremony, bool) {
	return s.lastCeremony(func(c Ceremony) bool { return (p == "" || c.Purpose == p) && c.open() && !c.expired(s.now) })
}

func (s *State) lastCeremony(match func(Ceremony) bool) (Ceremony, bool) {
	for _, c := range slices.Backward(s.ceremonies) {
		if match(c) {
			return c, true
		}
	}
	return Ceremony{}, false
}

// Key finds a key by name.
func (s *State) Key(name KeyName) (Key, bool) {
	k := s.KeyRecord(name)
	if k == nil {
		return Key{}, false
	}
	return *k, true
}

// KeyRecord is the record of a key, nil if there is none. It must not be modified. As long as it is the same pointer, in whatever
// state, nothing about the key has changed.
func (s *State) KeyRecord(name KeyName) *Key {
	if k := s.byName.get(name); k != nil {
		return k
	}
	k, _ := s.keys.Get(name)
	return k
}

// CertificateRecord is for certificates what KeyRecord is for keys.
func (s *State) CertificateRecord(serial string) *Certificate {
	c, _ := s.certificates.Get(serial)
	return c
}

// HasAvailable reports whether some node may be using a key under the longer lease: a key is of a class with LeaseAvailable, or was
// until a change that is not in force everywhere yet.
func (s *State) HasAvailable() bool {
	if s.leaving() {
		return true
	}
	found := false
	s.perClass.Scan(func(class string, n int) bool {
		c := s.ClassRecord(class)
		found = n > 0 && c != nil && c.Lease == LeaseAvailable
		return !found
	})
	return found
}

// KeyByID finds a key by id.
func (s *State) KeyByID(id KeyID) (Key, bool) {
	name, ok := s.names.Get(id)
	if !ok {
		return Key{}, false
	}
	return s.Key(name)
}

// KeyRecordByID is KeyRecord by id.
func (s *State) KeyRecordByID(id KeyID) *Key {
	name, ok := s.names.Get(id)
	if !ok {
		return nil
	}
	return s.KeyRecord(name)
}

// Keys lists by name the keys whose names begin with prefix and come after a name ("": from the start), at most limit (0 or
// less: all).
func (s *State) Keys(prefix string, after KeyName, limit int) []Key {
	var page []Key
	s.keys.Ascend(max(after, KeyName(prefix)), func(name KeyName, k *Key) bool {
		if !strings.HasPrefix(string(name), prefix) {
			return false
		}
		if name != after {
			page = append(page, *k)
		}
		return limit <= 0 || len(page) < limit
	})
	return page
}

// LastRestriction is the index of the last entry that took a right away; 0 for none.
func (s *State) LastRestriction() uint64 { return s.restriction }

// Version finds a version of the key.
func (k Key) Version(v Version) (KeyVersion, bool) {
	i, ok := slices.BinarySearchFunc(k.Versions, v, func(have KeyVersion, want Version) int { return cmp.Compare(have.Version, want) })
	if !ok {
		return KeyVersion{}, false
	}
	return k.Versions[i], true
}

// PrimaryVersion is the one that makes new protection. Every key in a State has one; the zero Key has the zero version.
func (k Key) PrimaryVersion() KeyVersion {
	v, _ := k.Version(k.Primary)
	return v
}

// usersLabel lists, separated by commas, the users that may use the key.
const usersLabel = "users"

// Users are the names in the label users.
func (k Key) Users() []string {
	for _, l := range k.Labels {
		if l.Name == usersLabel {
			return splitUsers(l.Value)
		}
	}
	return nil
}

// MayUse reports whether the label users lists name.
func (k Key) MayUse(name string) bool { return slices.Contains(k.Users(), name) }

func splitUsers(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func deref[T any](p *T, ok bool) (T, bool) {
	if !ok {
		var zero T
		return zero, false
	}
	return *p, true
}
