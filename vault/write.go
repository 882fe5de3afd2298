package vault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// proposal is what an entry node hands to the leader: an unstamped entry, and on whose behalf.
type proposal struct {
	Entry  []byte         `json:"entry"`
	Caller *policy.Caller `json:"caller,omitempty"` // nil: the node itself
}

const (
	// retryPause spaces tries while an election is under way; an election takes about a second.
	retryPause = 100 * time.Millisecond
	// replyMargin is kept of a caller's deadline, so that "pending on n3" still reaches it.
	replyMargin = 250 * time.Millisecond
	// maxWrite bounds a write for callers who set no deadline.
	maxWrite = 60 * time.Second
)

// write proposes a client's command through the leader and returns when its result is acknowledged and visible here. Tries
// that end without an answer are repeated: the request id makes them one.
func (v *Vault) write(ctx context.Context, c policy.Caller, id fsm.RequestID, hash [32]byte, cmd fsm.Command) (fsm.Result, error) {
	if id == "" {
		return fsm.Result{}, fmt.Errorf("%w: a write needs a request id (UUIDv7)", ErrInvalid)
	}
	e := fsm.Entry{Command: cmd, Actor: c.Actor(), Credential: c.Serial, RequestID: id, RequestHash: hash}
	return v.submit(ctx, proposal{Caller: &c}, e)
}

// report proposes a command of this node's own, as one request however often it must be sent.
func (v *Vault) report(ctx context.Context, cmd fsm.Command) (fsm.Result, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return fsm.Result{}, err
	}
	return v.submit(ctx, proposal{}, fsm.Entry{Command: cmd, Actor: v.actor(), RequestID: fsm.RequestID(id.String())})
}

func (v *Vault) actor() fsm.Actor {
	return fsm.Actor("spiffe://" + v.clusterID() + "/node/" + string(v.cfg.Node))
}

func (v *Vault) submit(ctx context.Context, p proposal, e fsm.Entry) (fsm.Result, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	data, err := fsm.EncodeEntry(e)
	if err != nil {
		return fsm.Result{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p.Entry = data
	payload, err := json.Marshal(p)
	if err != nil {
		return fsm.Result{}, err
	}
	result, err := v.untilAnswered(ctx, payload)
	if err != nil {
		return fsm.Result{}, err
	}
	if err := refused(result); err != nil {
		return result, err
	}
	return result, v.waitApplied(ctx, result.Index)
}

// bounded keeps a margin of the caller's deadline for the answer.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	d, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, maxWrite)
	}
	left := time.Until(d)
	return context.WithDeadline(ctx, d.Add(-min(replyMargin, left/10)))
}

func (v *Vault) untilAnswered(ctx context.Context, payload []byte) (fsm.Result, error) {
	for {
		result, err := ask[fsm.Result](func() ([]byte, error) { return v.cfg.Proposer.Forward(ctx, kindPropose, payload) })
		if !unanswered(err) {
			return result, err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fsm.Result{}, err
		}
	}
}

// unanswered: nobody decided; another try may.
func unanswered(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrOutcomeUnknown)
}

// requestHash is over what the client asked: the method and its fields, length-prefixed. What differs between nodes (a wrapped
// blob, a generated id) is not part of it, so a retry through another node is the same request.
func requestHash(method string, fields ...string) [32]byte {
	h := sha256.New()
	for _, f := range append([]string{"conclave/v1/request", method}, fields...) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return [32]byte(h.Sum(nil))
}
