package fsm

import (
	"fmt"
	"slices"
)

// Feature levels. A release speaks the level that the log says and understands one more, its newest; so a cluster is upgraded node by
// node at one level, and then raised by an entry, from which on every node speaks the next one. What a level changes:
//
//	1  the first
//	2  snapshots of format 2; the digest of form 2, which keeps each key's part; MaxAllRequests
//	3  exports (ExportKey, UpdateKey.NeverExportable), and that a rotation keeps the key's exportability; a key's own use budget lies within its class's
//	4  a class's budget is counted beside a key's own; a block that ends counts once more in the window that begins; rotations by uses are carried
//	   out as what is due, and uses of every algorithm are counted for them; planned dates ask for the approvals of what they do; a class's
//	   least wait holds for destructions under way; a compromise is recorded of what is to be destroyed; an unseal does not end without a
//	   node that was sealed again; the log's time includes refused entries
const (
	oldestLevel = 1
	// FeatureLevel is the newest that this release understands: what a new cluster begins with.
	FeatureLevel = 4

	levelOfExports = 3
	levelOfBudgets = 3 // a key's own budget within its class's
	levelOfRigour  = 4 // see above
)

// FeatureLevel is the one in force: what is proposed, written and computed is of this level.
func (s *State) FeatureLevel() uint32 { return s.cluster.FeatureLevel }

// neededLevel is the level that brought a command, or a field of one.
func neededLevel(c Command) uint32 {
	switch c := c.(type) {
	case ExportKey:
		return levelOfExports
	case UpdateKey:
		if c.NeverExportable {
			return levelOfExports
		}
	case ExecuteDue:
		if c.Kind == DueUses {
			return levelOfRigour
		}
	case RecordUse:
		if slices.ContainsFunc(c.Versions, func(v UsedVersion) bool { return v.Operations > 0 }) {
			return levelOfRigour
		}
	}
	return oldestLevel
}

// Speaks refuses what is of a higher level than the one in force. The leader asks before it proposes, because a member of an older release would have to
// stop at the entry; the machine asks again, because levels are part of what it promises.
func (s *State) Speaks(c Command) Result {
	if needed := neededLevel(c); needed > oldestLevel && s.FeatureLevel() < needed {
		return Result{Code: CodeUnsupported, Message: fmt.Sprintf("this needs feature level %d, and the cluster is at level %d: when every node runs a release that understands it, raise it with conclave level raise", needed, s.FeatureLevel())}
	}
	return Result{}
}

// NodeLevel is a member's word on the newest feature level that it understands.
type NodeLevel struct {
	Node        NodeID
	Understands uint32
}

// raiseFeatureLevel takes the cluster one level up. The proposer asked every member; an entry that leaves one out, or names one that
// does not understand the level, is refused, because that member would have to stop. There is no way down: what the higher
// level wrote is on every disk.
func (x *execution) raiseFeatureLevel(c RaiseFeatureLevel) error {
	now := x.cluster.FeatureLevel
	if c.Level != now+1 {
		return refuse(CodeConflict, "the cluster is at feature level %d, and levels are raised one by one: %d cannot follow", now, c.Level)
	}
	understands := make(map[NodeID]uint32, len(c.Nodes))
	for _, n := range c.Nodes {
		understands[n.Node] = n.Understands
	}
	for _, n := range x.nodes.Values() {
		if understands[n.ID] < c.Level {
			return refuse(CodeUnsupported, "node %s is not known to understand feature level %d: upgrade it, or remove it, and try again", n.ID, c.Level)
		}
	}
	if c.Level > FeatureLevel {
		return x.halt("it raises the feature level to %d, and this release understands %d: upgrade this node", c.Level, FeatureLevel)
	}
	x.cluster.FeatureLevel = c.Level
	x.emit(Event{
		Action: "cluster.level", Subject: clusterSubject, SubjectID: x.cluster.ID, From: levelName(now), To: levelName(c.Level),
		Detail: fmt.Sprintf("nodes=%d", x.nodes.Len()),
	})
	return nil
}

func levelName(level uint32) string { return fmt.Sprintf("level %d", level) }

// halt stops the node at this entry: others apply it, and this release cannot.
func (x *execution) halt(format string, args ...any) error {
	x.stop = fmt.Errorf("%w: %s", ErrUnknownEntry, fmt.Sprintf(format, args...))
	return x.stop
}
