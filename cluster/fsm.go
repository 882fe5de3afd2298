package cluster

import (
	"io"

	"github.com/hashicorp/raft"
)

// commandFSM stands before the Config's FSM. It passes commands only: raft feeds configurations to a batching FSM too, and an
// index that some nodes count and others do not could not be compared. It announces what was applied.
type commandFSM struct {
	inner   raft.FSM
	applied func()
}

var _ raft.BatchingFSM = (*commandFSM)(nil)

func (f *commandFSM) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

func (f *commandFSM) ApplyBatch(logs []*raft.Log) []any {
	commands := make([]*raft.Log, 0, len(logs))
	at := make([]int, 0, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			commands, at = append(commands, l), append(at, i)
		}
	}
	responses := make([]any, len(logs))
	if len(commands) == 0 {
		return responses
	}
	for i, r := range f.apply(commands) {
		responses[at[i]] = r
	}
	f.applied()
	return responses
}

func (f *commandFSM) apply(commands []*raft.Log) []any {
	if b, ok := f.inner.(raft.BatchingFSM); ok {
		return b.ApplyBatch(commands)
	}
	out := make([]any, len(commands))
	for i, l := range commands {
		out[i] = f.inner.Apply(l)
	}
	return out
}

func (f *commandFSM) Snapshot() (raft.FSMSnapshot, error) { return f.inner.Snapshot() }

func (f *commandFSM) Restore(snapshot io.ReadCloser) error {
	if err := f.inner.Restore(snapshot); err != nil {
		return err
	}
	f.applied()
	return nil
}
