package fsm

import (
	"fmt"
	"strings"
	"time"
)

// Amount of use of a key: operations, and the bytes that they were given.
type Amount struct{ Operations, Bytes uint64 }

// UseLimit is how much a key may be used. It is KMIP's Usage Limits (KMIP 2.1 §4.63) with a period, and it counts every use of the
// private or secret half, where KMIP leaves decryption out: a limit on it is what bounds a thief of credentials.
type UseLimit struct {
	Amount               // zero of either: that is not limited
	Per    time.Duration // windows of log time, counted from 1970; zero: for the key's life
	// Exact: every operation is counted by an entry before it is done, and no node holds a reserve.
	Exact bool
}

// None reports that nothing is limited.
func (l UseLimit) None() bool { return l.Amount == Amount{} }

// permits reports whether l allows every use that o allows.
func (l UseLimit) permits(o UseLimit) bool {
	if l.None() {
		return true
	}
	return !o.None() && l.Per == o.Per && (o.Exact || !l.Exact) &&
		wider(l.Operations, o.Operations) && wider(l.Bytes, o.Bytes)
}

// within reports whether l never permits more in a window of a class's budget than that does. Windows of both are multiples of their periods since
// 1970; where they do not fit into each other, parts of more of them lie in one.
func (l UseLimit) within(b Budget) bool {
	if l.None() || b == (Budget{}) {
		return true
	}
	n := windows(l.Per, b.Period)
	return fits(l.Operations, b.Operations, n) && fits(l.Bytes, b.Bytes, n)
}

// windows is how many of a period per, which is zero for ever, touch one of a longer or shorter period.
func windows(per, period time.Duration) uint64 {
	switch {
	case per == 0 || per%period == 0:
		return 1
	case period%per == 0:
		return uint64(period / per)
	default:
		return uint64(period/per) + 2
	}
}

func fits(limit, into, times uint64) bool { return into == 0 || limit != 0 && limit <= into/times }

func wider(limit, than uint64) bool { return limit == 0 || than != 0 && limit >= than }

// window is the beginning of the window that t lies in, in Unix milliseconds; 0 for a limit without a period.
func (l UseLimit) window(t time.Time) int64 {
	if l.Per == 0 {
		return 0
	}
	ms := t.UnixMilli()
	return ms - ms%l.Per.Milliseconds()
}

// String is the limit as the log and refusals have it.
func (l UseLimit) String() string {
	if l.None() {
		return "none"
	}
	var parts []string
	if l.Operations != 0 {
		parts = append(parts, fmt.Sprintf("operations=%d", l.Operations))
	}
	if l.Bytes != 0 {
		parts = append(parts, fmt.Sprintf("bytes=%d", l.Bytes))
	}
	if l.Per != 0 {
		parts = append(parts, "per="+l.Per.String())
	}
	if l.Exact {
		parts = append(parts, "exact")
	}
	return strings.Join(parts, " ")
}

// Validate returns what is wrong with l, as ErrInvalid.
func (l UseLimit) Validate() error {
	if l.Operations > MaxUses || l.Bytes > MaxUses {
		return invalid("a use budget is at most %d operations and as many bytes", uint64(MaxUses))
	}
	if l.None() && (l.Per != 0 || l.Exact) {
		return invalid("a use budget limits operations, bytes or both; neither is given")
	}
	if l.Per == 0 {
		return nil
	}
	if l.Per < MinUsePeriod || l.Per > MaxUsePeriod || l.Per%time.Millisecond != 0 {
		return invalid("the period of a use budget is from %s to %s in whole milliseconds, not %s", MinUsePeriod, MaxUsePeriod, l.Per)
	}
	return nil
}

// Limits of use budgets.
const (
	// MaxUses is the largest integer that every reader of JSON keeps exact.
	MaxUses = 1<<53 - 1
	// MinUsePeriod: leaders' clocks may differ by seconds, and shorter windows would mean nothing.
	MinUsePeriod = time.Second
	MaxUsePeriod = 10 * 365 * 24 * time.Hour
	// maxUseItems bounds the work of one entry that nodes propose about many keys.
	maxUseItems = 4096
)

// The bound of AES-GCM with nonces drawn at random: NIST SP 800-38D §8.3 allows 2^32 invocations under one key, so that two of them
// share a nonce with a probability below 2^-32.
const (
	gcmInvocations = 1 << 32
	// GCMCredit is what a process may encrypt under a version before its first block is committed, so that a first encryption waits
	// for nobody. Only a process that dies in between leaves them uncounted.
	GCMCredit = 1 << 10
	// gcmMargin is kept for those: a quarter of a million such deaths in the life of one version.
	gcmMargin = 1 << 28
	// gcmLimit is what blocks are reserved from.
	gcmLimit = gcmInvocations - gcmMargin
	// gcmWorn is when a version is replaced: with a quarter left, at the pace that used three, there is time to.
	gcmWorn = gcmLimit / 4 * 3
)

// BoundsInvocations reports whether keys of an algorithm have the bound of AES-GCM.
func BoundsInvocations(algorithm string) bool { return strings.HasSuffix(algorithm, "-gcm") }

// CountsAsUse reports whether op is counted against a key's use budget: whatever uses its private or secret half, except to check
// what somebody else made.
func (op Operation) CountsAsUse() bool { return usesSecret(op) }

// CountsAsInvocation reports whether op is an invocation of the authenticated encryption function.
func (op Operation) CountsAsInvocation() bool { return op == OpEncrypt || op == OpDataKey }

// UseLimit is what is in force for a key: its own limit, else its class's.
func (s *State) UseLimit(k *Key) UseLimit {
	u := s.UseRecord(k.ID)
	if u == nil {
		return s.limitIn(k, UseLimit{})
	}
	return s.limitIn(k, u.Limit)
}

// limitIn completes a key's own limit by its class, which has one for keys that have none, and may demand exactness of all.
func (s *State) limitIn(k *Key, own UseLimit) UseLimit {
	c := s.ClassRecord(k.Class)
	if c == nil {
		return own
	}
	if own.None() {
		own = UseLimit{Amount: Amount{c.Budget.Operations, c.Budget.Bytes}, Per: c.Budget.Period}
	}
	own.Exact = !own.None() && (own.Exact || c.Exact)
	return own
}

// SetBudget limits the use of a key, or (the zero Limit) ends that. A limit that forbids what was allowed is a restriction: nodes lose
// what they have in reserve.
type SetBudget struct {
	Name  KeyName
	Limit UseLimit
}

// ReserveUse is how a node gets a block of a use budget, or more for the one it has: the right to Want, or at the least to Need, counted
// as spent from now on. The block is bound to the node and its process.
type ReserveUse struct {
	Node    NodeID
	Boot    string
	Key     KeyID
	Version Version // 0: of the key's budget; else of the version's bound
	// Seq rises with every reservation of the process for the key and version, so that a repeated entry reserves once.
	Seq uint64
	// Opened names the block that the node has, by the index of the entry that opened it; 0: none. Used is what it has spent of it.
	Opened uint64
	Used   Amount
	Final  bool   // it will not spend more of it
	Need   Amount // of the first operation that waits; zero: none waits
	// Waiting is what all operations that wait need together.
	Waiting Amount
	Want    Amount // how much the node would like to have in hand
}

// ReturnUse gives back what is left of blocks from which the node does not spend any more.
type ReturnUse struct {
	Node   NodeID
	Boot   string
	Blocks []UsedBlock
}

// UsedBlock is a block with what was spent of it.
type UsedBlock struct {
	Key     KeyID
	Version Version
	Opened  uint64 // 0: what was encrypted on credit, before the first block was there
	Used    Amount
}

// RecordUse says that the node has used these versions lately.
type RecordUse struct {
	Node     NodeID
	Versions []UsedVersion
}

// UsedVersion names a version of a key.
type UsedVersion struct {
	Key     KeyID
	Version Version
	// Operations is how many uses since the last report count for the key's rotation; 0 where nothing counts them, or where blocks do. An entry that is
	// repeated counts twice: the rotation comes a little earlier.
	Operations uint64
}

// counts: a number is given only where it may be, and is one.
func (v UsedVersion) counts(algorithm string) bool {
	return v.Operations == 0 || v.Operations <= MaxUses && !BoundsInvocations(algorithm)
}

// CountsForRotation reports whether uses of a key are to be counted by reports, because its class rotates by them and no blocks do.
func (s *State) CountsForRotation(k *Key) bool {
	c := s.ClassRecord(k.Class)
	return c != nil && c.RotateUses > 0 && !BoundsInvocations(k.Algorithm) && s.FeatureLevel() >= levelOfRigour
}

// LapseUse ends every block of a node that nobody hears from. It is a restriction, so it is safe against a node that lives: that one
// loses its blocks before it may use another key.
type LapseUse struct{ Node NodeID }

func (SetBudget) Restricting() bool  { return true } // unless the new limit permits all that the old one did
func (ReserveUse) Restricting() bool { return false }
func (ReturnUse) Restricting() bool  { return false }
func (RecordUse) Restricting() bool  { return false }
func (LapseUse) Restricting() bool   { return true }

func (SetBudget) entryType() EntryType  { return typeSetBudget }
func (ReserveUse) entryType() EntryType { return typeReserveUse }
func (ReturnUse) entryType() EntryType  { return typeReturnUse }
func (RecordUse) entryType() EntryType  { return typeRecordUse }
func (LapseUse) entryType() EntryType   { return typeLapseUse }
