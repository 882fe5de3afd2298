package fsm

// Numbers of the commands in the log. Append only: logs and snapshots outlive releases.
const (
	typeInitCluster        EntryType = 1
	typeCreateJoinToken    EntryType = 2
	typeAdmitNode          EntryType = 3
	typeRecordCertificate  EntryType = 4
	typeRevokeCertificates EntryType = 5
	typeStartGenesis       EntryType = 6
	typeCommitEntropy      EntryType = 7
	typeRecordReveal       EntryType = 8
	typePublishDeal        EntryType = 9
	typeAcknowledgeShare   EntryType = 10
	typeStartUnseal        EntryType = 11
	typeRecordShareVerdict EntryType = 12
	typeRecordNodeUnsealed EntryType = 13
	typeAbortCeremony      EntryType = 14
	typeStartRoster        EntryType = 15
	typeSignRoster         EntryType = 16
	typeSealCluster        EntryType = 17
	typeCreateKey          EntryType = 18
	typeRotateKey          EntryType = 19
	typeChangeKey          EntryType = 20
	typeCompleteBarrier    EntryType = 21
	typeMoveNode           EntryType = 22
	typeDescribeDevice     EntryType = 23
	typeCreateClass        EntryType = 30
	typeUpdateClass        EntryType = 31
	typeDeleteClass        EntryType = 32
	typeSetKeyClass        EntryType = 33
	typeUpdateKey          EntryType = 34
	typeExecuteDue         EntryType = 35
	typeRecordErasure      EntryType = 36
	typeRaiseFeatureLevel  EntryType = 45

	typeDrainNode   EntryType = 50
	typeUndrainNode EntryType = 51
	typeRemoveNode  EntryType = 52

	typeImportKey EntryType = 60
	typeExportKey EntryType = 61

	typeSetBudget  EntryType = 65
	typeReserveUse EntryType = 66
	typeReturnUse  EntryType = 67
	typeRecordUse  EntryType = 68
	typeLapseUse   EntryType = 69
)

// Ignored is an entry of a type that this release does not know and need not: a newer one proposed it with the must-understand
// flag off. It is applied as a no-op. Every type of this release changes the state that all nodes must agree on, so every one
// of them is must-understand.
type Ignored struct{ Type EntryType }

func (Ignored) Restricting() bool            { return false }
func (InitCluster) Restricting() bool        { return false }
func (CreateJoinToken) Restricting() bool    { return false }
func (AdmitNode) Restricting() bool          { return false }
func (RecordCertificate) Restricting() bool  { return false }
func (RevokeCertificates) Restricting() bool { return true }
func (StartGenesis) Restricting() bool       { return false }
func (CommitEntropy) Restricting() bool      { return false }
func (RecordReveal) Restricting() bool       { return false }
func (PublishDeal) Restricting() bool        { return false }
func (AcknowledgeShare) Restricting() bool   { return false }
func (StartUnseal) Restricting() bool        { return false }
func (RecordShareVerdict) Restricting() bool { return false }
func (RecordNodeUnsealed) Restricting() bool { return false }
func (AbortCeremony) Restricting() bool      { return false }
func (StartRoster) Restricting() bool        { return false }
func (SignRoster) Restricting() bool         { return false }
func (SealCluster) Restricting() bool        { return true }
func (CreateKey) Restricting() bool          { return false }
func (RotateKey) Restricting() bool          { return false }
func (CompleteBarrier) Restricting() bool    { return false }
func (MoveNode) Restricting() bool           { return false }
func (DescribeDevice) Restricting() bool     { return false }
func (RaiseFeatureLevel) Restricting() bool  { return false }
func (CreateClass) Restricting() bool        { return false }
func (UpdateClass) Restricting() bool        { return true }
func (DeleteClass) Restricting() bool        { return false }
func (SetKeyClass) Restricting() bool        { return true }
func (UpdateKey) Restricting() bool          { return true } // where it takes users, or the right to export, away
func (RecordErasure) Restricting() bool      { return false }

// Restricting: the end of a period takes a right away. A destruction that is carried out takes none that its order left.
func (c ExecuteDue) Restricting() bool { return c.Kind == DueDeactivate || c.Kind == DueProcessingEnd }
func (DrainNode) Restricting() bool    { return true }
func (UndrainNode) Restricting() bool  { return false }
func (RemoveNode) Restricting() bool   { return true }
func (ImportKey) Restricting() bool    { return false }
func (ExportKey) Restricting() bool    { return false }

// Restricting: everything that takes a right away. Resume and cancel give something back, or nothing.
func (c ChangeKey) Restricting() bool {
	switch c.Action {
	case ActionSuspend, ActionDeactivate, ActionCompromise, ActionRevoke, ActionDestroy:
		return true
	default:
		return false
	}
}

func (c Ignored) entryType() EntryType          { return c.Type }
func (InitCluster) entryType() EntryType        { return typeInitCluster }
func (CreateJoinToken) entryType() EntryType    { return typeCreateJoinToken }
func (AdmitNode) entryType() EntryType          { return typeAdmitNode }
func (RecordCertificate) entryType() EntryType  { return typeRecordCertificate }
func (RevokeCertificates) entryType() EntryType { return typeRevokeCertificates }
func (StartGenesis) entryType() EntryType       { return typeStartGenesis }
func (CommitEntropy) entryType() EntryType      { return typeCommitEntropy }
func (RecordReveal) entryType() EntryType       { return typeRecordReveal }
func (PublishDeal) entryType() EntryType        { return typePublishDeal }
func (AcknowledgeShare) entryType() EntryType   { return typeAcknowledgeShare }
func (StartUnseal) entryType() EntryType        { return typeStartUnseal }
func (RecordShareVerdict) entryType() EntryType { return typeRecordShareVerdict }
func (RecordNodeUnsealed) entryType() EntryType { return typeRecordNodeUnsealed }
func (AbortCeremony) entryType() EntryType      { return typeAbortCeremony }
func (StartRoster) entryType() EntryType        { return typeStartRoster }
func (SignRoster) entryType() EntryType         { return typeSignRoster }
func (SealCluster) entryType() EntryType        { return typeSealCluster }
func (CreateKey) entryType() EntryType          { return typeCreateKey }
func (RotateKey) entryType() EntryType          { return typeRotateKey }
func (ChangeKey) entryType() EntryType          { return typeChangeKey }
func (CompleteBarrier) entryType() EntryType    { return typeCompleteBarrier }
func (MoveNode) entryType() EntryType           { return typeMoveNode }
func (DescribeDevice) entryType() EntryType     { return typeDescribeDevice }
func (RaiseFeatureLevel) entryType() EntryType  { return typeRaiseFeatureLevel }
func (CreateClass) entryType() EntryType        { return typeCreateClass }
func (UpdateClass) entryType() EntryType        { return typeUpdateClass }
func (DeleteClass) entryType() EntryType        { return typeDeleteClass }
func (SetKeyClass) entryType() EntryType        { return typeSetKeyClass }
func (UpdateKey) entryType() EntryType          { return typeUpdateKey }
func (ExecuteDue) entryType() EntryType         { return typeExecuteDue }
func (RecordErasure) entryType() EntryType      { return typeRecordErasure }
func (DrainNode) entryType() EntryType          { return typeDrainNode }
func (UndrainNode) entryType() EntryType        { return typeUndrainNode }
func (RemoveNode) entryType() EntryType         { return typeRemoveNode }
func (ImportKey) entryType() EntryType          { return typeImportKey }
func (ExportKey) entryType() EntryType          { return typeExportKey }

// proposedByNodes reports whether nodes propose c by themselves, so that it may come without a request id. All of these are
// idempotent or guarded by what they refer to, so that a second proposal does no harm.
func proposedByNodes(c Command) bool {
	switch c.(type) {
	case InitCluster, AdmitNode, RecordReveal, PublishDeal, RecordShareVerdict, RecordNodeUnsealed, CompleteBarrier, MoveNode,
		DescribeDevice, ExecuteDue, RecordErasure, ReserveUse, ReturnUse, RecordUse, LapseUse:
		return true
	default:
		return false
	}
}
