package fsm

import (
	"fmt"
	"time"
)

// execution is one entry on its way through the state. Its State is the machine's working copy.
//
// Every command's method checks everything first and changes the state after its last check, so that a refusal leaves no
// trace; tests compare digests around refusals.
type execution struct {
	*State
	entry  Entry
	index  uint64
	key    requestKey // of an admissible entry with a request id
	events []Event
	result Result
	stop   error // the node must stop here, see halt
}

// run is the life of an entry: remembered? allowed to be here? then the command.
func (x *execution) run() Result {
	x.result = Result{Index: x.index}
	x.forgetRequests()
	if _, none := x.entry.Command.(Ignored); none {
		return x.result
	}
	if err := x.admissible(); err != nil {
		return refused(err, x.index)
	}
	if first, ok := x.remembered(); ok {
		return first
	}
	x.expire()
	if err := x.execute(x.entry.Command); err != nil {
		return refused(err, x.index)
	}
	x.remember()
	return x.result
}

// admissible checks what is true of every entry.
func (x *execution) admissible() error {
	_, first := x.entry.Command.(InitCluster)
	if !first && !x.Initialised() {
		return refuse(CodeUninitialised, "the cluster is not initialised: run conclave init on one node")
	}
	if r := x.Speaks(x.entry.Command); r.Code != CodeOK {
		return refuse(r.Code, "%s", r.Message)
	}
	if x.entry.Actor == "" {
		return invalid("an entry names the identity on whose behalf it was proposed")
	}
	if err := validText("the actor", string(x.entry.Actor), maxActor); err != nil {
		return err
	}
	if x.entry.Time.IsZero() && (first || !proposedByNodes(x.entry.Command)) {
		return invalid("the leader stamps every client's entry with its time, and this one has none")
	}
	if err := x.admissibleCredential(); err != nil {
		return err
	}
	return x.admissibleRequest()
}

// admissibleCredential closes the moment between the leader's authorisation and the commit: whoever was revoked by an entry
// before this one changes nothing any more.
func (x *execution) admissibleCredential() error {
	if x.entry.Credential == "" {
		return nil
	}
	c, known := x.Certificate(x.entry.Credential)
	if !known || c.RevokedAt != 0 {
		return refuse(CodeDenied, "the certificate with serial %s is not recorded, or was revoked", clip(x.entry.Credential))
	}
	return nil
}

// execute is a flat dispatcher: one line a command.
func (x *execution) execute(command Command) error {
	switch c := command.(type) {
	case InitCluster:
		return x.initCluster(c)
	case CreateJoinToken:
		return x.createJoinToken(c)
	case AdmitNode:
		return x.admitNode(c)
	case RecordCertificate:
		return x.recordCertificate(c)
	case RevokeCertificates:
		return x.revokeCertificates(c)
	case StartGenesis:
		return x.startGenesis(c)
	case CommitEntropy:
		return x.commitEntropy(c)
	case RecordReveal:
		return x.recordReveal(c)
	case PublishDeal:
		return x.publishDeal(c)
	case AcknowledgeShare:
		return x.acknowledgeShare(c)
	case StartUnseal:
		return x.startUnseal(c)
	case RecordShareVerdict:
		return x.recordShareVerdict(c)
	case RecordNodeUnsealed:
		return x.recordNodeUnsealed(c)
	case AbortCeremony:
		return x.abortCeremony(c)
	case StartRoster:
		return x.startRoster(c)
	case SignRoster:
		return x.signRoster(c)
	case SealCluster:
		return x.sealCluster(c)
	case CreateKey:
		return x.createKey(c)
	case ImportKey:
		return x.importKey(c)
	case ExportKey:
		return x.exportKey(c)
	case RotateKey:
		return x.rotateKey(c)
	case ChangeKey:
		return x.changeKey(c)
	case CompleteBarrier:
		return x.completeBarrier(c)
	case MoveNode:
		return x.moveNode(c)
	case DescribeDevice:
		return x.describeDevice(c)
	case RaiseFeatureLevel:
		return x.raiseFeatureLevel(c)
	case CreateClass:
		return x.createClass(c)
	case UpdateClass:
		return x.updateClass(c)
	case DeleteClass:
		return x.deleteClass(c)
	case SetKeyClass:
		return x.setKeyClass(c)
	case UpdateKey:
		return x.updateKey(c)
	case ExecuteDue:
		return x.executeDue(c)
	case RecordErasure:
		return x.recordErasure(c)
	case DrainNode:
		return x.drainNode(c)
	case UndrainNode:
		return x.undrainNode(c)
	case RemoveNode:
		return x.removeNode(c)
	case SetBudget:
		return x.setBudget(c)
	case ReserveUse:
		return x.reserveUse(c)
	case ReturnUse:
		return x.returnUse(c)
	case RecordUse:
		return x.recordUse(c)
	case LapseUse:
		return x.lapseUse(c)
	default:
		panic(fmt.Sprintf("fsm: index %d: no method for %T", x.index, command)) // DecodeEntry knows every type that this knows
	}
}

// emit appends an event to the lifecycle log. What is common to all is filled in here.
func (x *execution) emit(e Event) {
	e.Leaf, e.Index, e.Time = x.tree.size, x.index, x.now
	e.Actor, e.RequestID = x.entry.Actor, x.entry.RequestID
	x.form = e.appendTo(x.form[:0])
	x.tree.Append(x.form)
	if x.events == nil {
		x.events = make([]Event, 0, 2) // what a new version makes
	}
	x.events = append(x.events, e)
}

// due is the instant d from now in log time.
func (x *execution) due(d time.Duration) time.Time { return x.now.Add(d).Truncate(time.Millisecond) }
