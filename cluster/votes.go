package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// asking is raft's transport with a second try for votes, and for the word to take the leadership over. Raft keeps connections and does not look
// whether they still live: one to a process that has ended since fails at its next message, and takes a candidate a whole round of its election.
// A dead connection is gone when it has failed, so at the latest after raftConnsPerNode of them a new one is made. Asking twice is harmless: a voter
// answers the same, and who is told twice to take over stands for election once more.
type asking struct {
	*raft.NetworkTransport
	// within bounds from when on a failure is an answer: a dead connection fails within a round trip, what takes longer was sent and not answered.
	within time.Duration
}

var _ raft.WithPreVote = asking{}

// RequestVote implements raft.Transport.
func (a asking) RequestVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return a.untilAlive(func() error { return a.NetworkTransport.RequestVote(id, addr, q, r) })
}

// RequestPreVote implements raft.WithPreVote.
func (a asking) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, q *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return a.untilAlive(func() error { return a.NetworkTransport.RequestPreVote(id, addr, q, r) })
}

// TimeoutNow implements raft.Transport.
func (a asking) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, q *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return a.untilAlive(func() error { return a.NetworkTransport.TimeoutNow(id, addr, q, r) })
}

func (a asking) untilAlive(send func() error) (err error) {
	began := time.Now()
	for range raftConnsPerNode + 1 {
		err = send()
		var refused *dialError
		if err == nil || errors.As(err, &refused) || time.Since(began) > a.within {
			return err
		}
	}
	return err
}

// dialError: there is no connection.
type dialError struct {
	to    raft.ServerAddress
	cause error
}

func (e *dialError) Error() string { return string(e.to) + ": " + e.cause.Error() }
func (e *dialError) Unwrap() error { return e.cause }
