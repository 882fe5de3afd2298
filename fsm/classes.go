package fsm

import (
	"slices"
	"strings"
	"time"
)

// LeaseMode says what a node needs to use a key of the class.
type LeaseMode string

const (
	LeaseStrict    LeaseMode = "strict"    // one more round to the leader for every use
	LeaseLeased    LeaseMode = "leased"    // the node's serving lease
	LeaseAvailable LeaseMode = "available" // a longer lease of its own, Class.LeaseDuration
)

// AvailableLease is how long the longer lease lasts. There is one of it, for all classes with LeaseAvailable: what a lost node may
// still do must have one bound.
const AvailableLease = time.Minute

// UsageLog says when the record of a use must be on disk.
type UsageLog string

const (
	UsageDurable  UsageLog = "durable"  // before the reply
	UsageBuffered UsageLog = "buffered" // soon after
)

// Class is what every key of it must obey. Periods are counted from the activation of a version (NIST SP 800-57 Part 1 Rev. 5 §5.3).
type Class struct {
	Name         string
	Description  string
	HardwareOnly bool     // material is made and used in hardware only, except in a dev cluster
	Algorithms   []string // allowed ones, sorted; empty: all
	Export       bool     // material may be made exportable

	OriginatorPeriod time.Duration // how long a version makes new protection; zero: no end
	RecipientPeriod  time.Duration // how long what it protected may be processed, at least OriginatorPeriod; zero: no end
	RotateEvery      time.Duration // zero: never by time
	RotateUses       uint64        // of a version (VersionUse.Protected): encryptions with AES-GCM, what counts against a budget else; zero: never by uses
	Budget           Budget

	// MinDestroyWait is the shortest time from scheduling a destruction to doing it.
	MinDestroyWait time.Duration
	Approvals      []Approval // sorted by operation
	MFA            bool       // who changes a key of it must have shown a second factor

	Lease                 LeaseMode
	LeaseDuration         time.Duration // AvailableLease for LeaseAvailable; zero otherwise
	UsageLog              UsageLog
	Exact                 bool // every use that counts against a budget is committed before it is done
	DecryptWhileSuspended bool // with a reason

	CreatedAt time.Time // zero: built in
	Revision  uint64    // index of the last change; 0: built in
}

// Budget limits the uses of a key in each period. Zero means no limit.
type Budget struct {
	Operations uint64
	Bytes      uint64
	Period     time.Duration
}

// Approval is an operation that a quorum of people must approve.
type Approval struct {
	Operation string   // one of ApprovalOperations
	Quorum    uint32   // how many, from 1
	Groups    []string // whose members count, sorted; empty: anybody who may approve
}

// ApprovalUse is the operation of every use of the private or secret half.
const ApprovalUse = "use"

// ApprovalOperations lists what may need approval. What takes a right away in an emergency (suspend, compromise, revoke) is not among
// them: whoever sees the fire must not look for a second person first.
func ApprovalOperations() []string {
	return []string{"activate", "cancel-destroy", "create", "deactivate", "destroy", "export", "resume", "rotate", "update", ApprovalUse}
}

// BuiltIn reports whether the class comes with the program and cannot be changed.
func (c Class) BuiltIn() bool { return c.Revision == 0 }

// Approval is how many people must approve an operation; 0: none.
func (c Class) Approval(operation string) Approval {
	for _, a := range c.Approvals {
		if a.Operation == operation {
			return a
		}
	}
	return Approval{}
}

// allows reports whether keys of an algorithm may be of the class.
func (c Class) allows(algorithm string) bool {
	return len(c.Algorithms) == 0 || slices.Contains(c.Algorithms, algorithm)
}

// Names of the built-in classes.
const (
	ClassPublicTrust = "public-trust"
	ClassCritical    = "critical"
	ClassStandard    = "standard"
	ClassLow         = "low"
)

const day = 24 * time.Hour

// builtIn is the design's table, strictest first. It is code and not state: every node of a release has the same.
var builtIn = [...]*Class{
	{
		Name: ClassPublicTrust, Description: "keys that the public relies on, such as roots of trust", HardwareOnly: true,
		Lease: LeaseStrict, UsageLog: UsageDurable, MinDestroyWait: 30 * day, RotateEvery: 365 * day,
		Approvals: []Approval{{Operation: ApprovalUse, Quorum: 2}},
	},
	{
		Name: ClassCritical, Description: "keys whose abuse would do great harm", HardwareOnly: true,
		Lease: LeaseLeased, UsageLog: UsageDurable, MinDestroyWait: 30 * day, RotateEvery: 90 * day,
	},
	{
		Name: ClassStandard, Description: "what most keys are", Lease: LeaseLeased, UsageLog: UsageBuffered, MinDestroyWait: 7 * day, Export: true,
		RotateEvery: 365 * day,
	},
	{
		Name: ClassLow, Description: "keys whose service matters more than their immediate revocation",
		Lease: LeaseAvailable, LeaseDuration: AvailableLease, UsageLog: UsageBuffered, MinDestroyWait: day, Export: true, DecryptWhileSuspended: true,
	},
}

// Classes lists the names of the built-in classes, strictest first.
func Classes() []string {
	var names []string
	for _, c := range builtIn {
		names = append(names, c.Name)
	}
	return names
}

// ClassRecord is the record of a class, built in or custom; nil if there is none. It must not be modified. As long as it is the same
// pointer, in whatever state, nothing about the class has changed.
func (s *State) ClassRecord(name string) *Class {
	for _, c := range builtIn {
		if c.Name == name {
			return c
		}
	}
	c, _ := s.classes.Get(name)
	return c
}

// Class finds a class by name, built in or custom. The empty name is no class: CreateKey makes it ClassStandard.
func (s *State) Class(name string) (Class, bool) {
	if c := s.ClassRecord(name); c != nil {
		return *c, true
	}
	return Class{}, false
}

// AllClasses lists the built-in ones, strictest first, then the custom ones by name.
func (s *State) AllClasses() []Class {
	all := make([]Class, 0, len(builtIn)+s.classes.Len())
	for _, c := range builtIn {
		all = append(all, *c)
	}
	for _, c := range s.classes.Values() {
		all = append(all, *c)
	}
	return all
}

// KeysOf is how many keys, tombstones included, are of a class.
func (s *State) KeysOf(class string) int {
	n, _ := s.perClass.Get(class)
	return n
}

func (s *State) knownClass(name string) (Class, error) {
	if c, ok := s.Class(name); ok {
		return c, nil
	}
	return Class{}, invalid("there is no class %q; there are: %s", clip(name), clip(strings.Join(s.classNames(), ", ")))
}

func (s *State) classNames() []string {
	return append(Classes(), s.classes.Keys()...)
}

// permits refuses what the class demands approval or a second factor for, because this release cannot collect either; there is no way
// around it.
func (c Class) permits(operation string) error {
	if a := c.Approval(operation); a.Quorum > 0 {
		from := ""
		if len(a.Groups) > 0 {
			from = " from " + strings.Join(a.Groups, ", ")
		}
		return refuse(CodeNeedsApproval, "class %s needs %d approvals%s for %s, which this release cannot collect", c.Name, a.Quorum, from, operation)
	}
	if c.MFA && operation != ApprovalUse {
		return refuse(CodeDenied, "class %s needs a second factor for %s, and no caller of this release can show one", c.Name, operation)
	}
	return nil
}
