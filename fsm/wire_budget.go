package fsm

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm/fsmpb"
)

// useCommandToWire is commandToWire for what is about uses.
func useCommandToWire(command Command) proto.Message {
	switch c := command.(type) {
	case SetBudget:
		return &fsmpb.SetBudget{Name: string(c.Name), Limit: limitToWire(c.Limit)}
	case ReserveUse:
		return &fsmpb.ReserveUse{
			Node: string(c.Node), Boot: c.Boot, KeyId: string(c.Key), Version: uint32(c.Version), Seq: c.Seq, Opened: c.Opened,
			Used: amountToWire(c.Used), Final: c.Final, Need: amountToWire(c.Need), Waiting: amountToWire(c.Waiting), Want: amountToWire(c.Want),
		}
	case ReturnUse:
		return &fsmpb.ReturnUse{Node: string(c.Node), Boot: c.Boot, Blocks: mapped(c.Blocks, usedBlockToWire)}
	case RecordUse:
		return &fsmpb.RecordUse{Node: string(c.Node), Versions: mapped(c.Versions, usedVersionToWire)}
	case LapseUse:
		return &fsmpb.LapseUse{Node: string(c.Node)}
	default:
		return nil
	}
}

func newUsePayload(t EntryType) proto.Message {
	switch t {
	case typeSetBudget:
		return new(fsmpb.SetBudget)
	case typeReserveUse:
		return new(fsmpb.ReserveUse)
	case typeReturnUse:
		return new(fsmpb.ReturnUse)
	case typeRecordUse:
		return new(fsmpb.RecordUse)
	case typeLapseUse:
		return new(fsmpb.LapseUse)
	default:
		return nil
	}
}

func useCommandFromWire(message proto.Message) Command {
	switch w := message.(type) {
	case *fsmpb.SetBudget:
		return SetBudget{Name: KeyName(w.GetName()), Limit: limitFromWire(w.GetLimit())}
	case *fsmpb.ReserveUse:
		return ReserveUse{
			Node: NodeID(w.GetNode()), Boot: w.GetBoot(), Key: KeyID(w.GetKeyId()), Version: Version(w.GetVersion()), Seq: w.GetSeq(),
			Opened: w.GetOpened(), Used: amountFromWire(w.GetUsed()), Final: w.GetFinal(), Need: amountFromWire(w.GetNeed()),
			Waiting: amountFromWire(w.GetWaiting()), Want: amountFromWire(w.GetWant()),
		}
	case *fsmpb.ReturnUse:
		return ReturnUse{Node: NodeID(w.GetNode()), Boot: w.GetBoot(), Blocks: mapped(w.GetBlocks(), usedBlockFromWire)}
	case *fsmpb.RecordUse:
		return RecordUse{Node: NodeID(w.GetNode()), Versions: mapped(w.GetVersions(), usedVersionFromWire)}
	case *fsmpb.LapseUse:
		return LapseUse{Node: NodeID(w.GetNode())}
	default:
		return nil
	}
}

// amountToWire leaves nothing out as an absent message, so that the digest does not tell it from one.
func amountToWire(a Amount) *fsmpb.UseAmount {
	if a == (Amount{}) {
		return nil
	}
	return &fsmpb.UseAmount{Operations: a.Operations, Bytes: a.Bytes}
}

func amountFromWire(w *fsmpb.UseAmount) Amount {
	return Amount{Operations: w.GetOperations(), Bytes: w.GetBytes()}
}

func limitToWire(l UseLimit) *fsmpb.UseLimit {
	if l == (UseLimit{}) {
		return nil
	}
	return &fsmpb.UseLimit{Amount: amountToWire(l.Amount), PerNs: int64(l.Per), Exact: l.Exact}
}

func limitFromWire(w *fsmpb.UseLimit) UseLimit {
	return UseLimit{Amount: amountFromWire(w.GetAmount()), Per: time.Duration(w.GetPerNs()), Exact: w.GetExact()}
}

func usedBlockToWire(b UsedBlock) *fsmpb.UsedBlock {
	return &fsmpb.UsedBlock{KeyId: string(b.Key), Version: uint32(b.Version), Opened: b.Opened, Used: amountToWire(b.Used)}
}

func usedBlockFromWire(w *fsmpb.UsedBlock) UsedBlock {
	return UsedBlock{Key: KeyID(w.GetKeyId()), Version: Version(w.GetVersion()), Opened: w.GetOpened(), Used: amountFromWire(w.GetUsed())}
}

func usedVersionToWire(v UsedVersion) *fsmpb.UsedVersion {
	return &fsmpb.UsedVersion{KeyId: string(v.Key), Version: uint32(v.Version), Operations: v.Operations}
}

func usedVersionFromWire(w *fsmpb.UsedVersion) UsedVersion {
	return UsedVersion{Key: KeyID(w.GetKeyId()), Version: Version(w.GetVersion()), Operations: w.GetOperations()}
}

func useToWire(id KeyID, u *Use) *fsmpb.KeyUse {
	return &fsmpb.KeyUse{
		KeyId: string(id), Limit: limitToWire(u.Limit), WindowMs: u.Window, Limited: accountToWire(u.Limited),
		ClassWindowMs: u.Class.Window, ClassSpent: amountToWire(u.Class.Spent),
		Versions: mapped(u.Versions, func(v VersionUse) *fsmpb.VersionUse {
			return &fsmpb.VersionUse{Version: uint32(v.Version), LastUsedMs: v.LastUsed, Protected: accountToWire(v.Protected)}
		}),
	}
}

func accountToWire(a UseAccount) *fsmpb.UseAccount {
	if a.Spent == (Amount{}) && len(a.Blocks) == 0 {
		return nil
	}
	return &fsmpb.UseAccount{Spent: amountToWire(a.Spent), Blocks: mapped(a.Blocks, func(b UseBlock) *fsmpb.UseBlock {
		return &fsmpb.UseBlock{
			Node: string(b.Node), Boot: b.Boot, Opened: b.Opened, Seq: b.Seq, Reserved: amountToWire(b.Reserved), Settled: amountToWire(b.Settled),
			Void: b.Void,
		}
	})}
}

// restoreUse shares names with the records of key and nodes, which come before: a key used on three nodes would repeat seven of them.
func (s *State) restoreUse(w *fsmpb.KeyUse) error {
	k, found := s.KeyByID(KeyID(w.GetKeyId()))
	if !found {
		return invalid("uses of a key that is not there")
	}
	u := Use{Limit: limitFromWire(w.GetLimit()), Window: w.GetWindowMs(), Limited: s.accountFromWire(w.GetLimited())}
	u.Class = Spending{Window: w.GetClassWindowMs(), Spent: amountFromWire(w.GetClassSpent())}
	for i, v := range w.GetVersions() {
		if i > 0 && v.GetVersion() <= w.GetVersions()[i-1].GetVersion() {
			return invalid("the versions of a key's uses do not ascend")
		}
		u.Versions = append(u.Versions, VersionUse{
			Version: Version(v.GetVersion()), LastUsed: v.GetLastUsedMs(), Protected: s.accountFromWire(v.GetProtected()),
		})
	}
	if _, twice := s.uses.Get(k.ID); twice {
		return invalid("it stands twice")
	}
	u.Versions = append([]VersionUse(nil), u.Versions...)
	s.setUse(k.ID, u)
	return nil
}

func (s *State) accountFromWire(w *fsmpb.UseAccount) UseAccount {
	return UseAccount{Spent: amountFromWire(w.GetSpent()), Blocks: mapped(w.GetBlocks(), func(b *fsmpb.UseBlock) UseBlock {
		block := UseBlock{
			Node: NodeID(b.GetNode()), Boot: b.GetBoot(), Opened: b.GetOpened(), Seq: b.GetSeq(),
			Reserved: amountFromWire(b.GetReserved()), Settled: amountFromWire(b.GetSettled()), Void: b.GetVoid(),
		}
		if n, member := s.nodes.Get(block.Node); member {
			block.Node = n.ID
			if n.UnsealedBoot == block.Boot {
				block.Boot = n.UnsealedBoot
			}
		}
		return block
	})}
}

func ledgerToWire(l useLedger) *fsmpb.UseLedger {
	return &fsmpb.UseLedger{SinceMs: toMillis(l.since), Lapses: mapped(l.lapses, func(l useLapse) *fsmpb.UseLapse {
		return &fsmpb.UseLapse{Node: string(l.node), Index: l.index, DoneMs: l.done}
	})}
}

func (s *State) restoreLedger(w *fsmpb.UseLedger) error {
	if !s.ledger.since.IsZero() {
		return invalid("it stands twice")
	}
	s.ledger = useLedger{since: fromMillis(w.GetSinceMs()), lapses: mapped(w.GetLapses(), func(l *fsmpb.UseLapse) useLapse {
		return useLapse{NodeID(l.GetNode()), l.GetIndex(), l.GetDoneMs()}
	})}
	return nil
}

// useRecords yields what is known of uses: the ledger, if it has begun, and each key's record in the order of ids.
func (s *State) useRecords(w *recordWriter) {
	if !s.ledger.since.IsZero() {
		w.put(&fsmpb.Record{Kind: &fsmpb.Record_Ledger{Ledger: ledgerToWire(s.ledger)}})
	}
	s.uses.Scan(func(id KeyID, u *Use) bool {
		return w.put(&fsmpb.Record{Kind: &fsmpb.Record_Use{Use: useToWire(id, u)}})
	})
}
