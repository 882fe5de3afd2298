package fsm

// Code is the outcome of an applied entry. Numbers are append-only: they are stored, and they cross versions.
type Code uint32

const (
	CodeOK              Code = 0
	CodeInvalid         Code = 1  // malformed or outside a limit
	CodeNotFound        Code = 2  // the object is not there
	CodeExists          Code = 3  // the name or id is taken, for ever
	CodeState           Code = 4  // the key's state forbids it
	CodeNeedsApproval   Code = 5  // allowed only with a quorum, which this release cannot collect
	CodeVersionConflict Code = 6  // the version is not the next one: read again
	CodeRequestReused   Code = 7  // same request id, another request
	CodeRequestExpired  Code = 8  // the request id is older than the horizon
	CodeDenied          Code = 9  // a signature, token or precondition of trust does not hold
	CodeCeremony        Code = 10 // the ceremony is not open, or not in this phase
	CodeConflict        Code = 11 // overtaken by another entry (a seal order, another deal)
	CodeLimit           Code = 12 // a limit of the catalog is reached
	CodeUninitialised   Code = 13 // no InitCluster yet
	CodeUnsupported     Code = 14 // a node of the serving set cannot use the algorithm

	CodeBudget Code = 34 // the use budget does not allow it
)

// Result is what applying an entry yields; equal on every replica, and what a repeated request gets again.
type Result struct {
	Code    Code
	Message string // for people: what, why, what next; empty when OK
	Index   uint64 // of the entry (of the first one, for a repeat)
	Repeat  bool   // this entry repeated an earlier request; not stored

	// What the caller needs of what was made.
	KeyID    KeyID
	Version  Version
	Ceremony CeremonyID
	// Barrier is the index whose barrier must be done before this result is acknowledged; 0 for none. It is set for a
	// restricting entry that changed something, and for a repeat of one.
	Barrier uint64
}
