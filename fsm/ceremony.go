package fsm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func ceremonySubject(id CeremonyID) string       { return "ceremony/" + string(id) }
func custodianSubject(name CustodianName) string { return "custodian/" + string(name) }
func (c Ceremony) open() bool                    { return c.Phase != PhaseDone && c.Phase != PhaseAborted }
func (c Ceremony) expired(now time.Time) bool    { return now.After(c.ExpiresAt) }
func (c Ceremony) commitmentOf(n CustodianName) int {
	return slices.IndexFunc(c.Commitments, func(e EntropyCommitment) bool { return e.Custodian == n })
}

// expire aborts the open ceremony that this command is about if its time has run out by the log's clock. It is the log's time
// that ends it, not the command, so the abort and its event stand even if the command is then refused.
func (x *execution) expire() {
	purpose, ok := x.purposeOf(x.entry.Command)
	if !ok {
		return
	}
	for _, c := range x.ceremonies {
		if c.Purpose == purpose && c.open() && c.expired(x.now) {
			x.abort(c, "expired at "+stamp(c.ExpiresAt))
		}
	}
}

func (x *execution) purposeOf(command Command) (Purpose, bool) {
	switch c := command.(type) {
	case StartGenesis, CommitEntropy, RecordReveal, PublishDeal, AcknowledgeShare:
		return PurposeGenesis, true
	case StartUnseal, RecordShareVerdict, RecordNodeUnsealed:
		return PurposeUnseal, true
	case StartRoster, SignRoster:
		return PurposeRoster, true
	case AbortCeremony:
		named, ok := x.Ceremony(c.Ceremony)
		return named.Purpose, ok
	default:
		return "", false
	}
}

// newCeremony checks what is common to all of them.
func (x *execution) newCeremony(id CeremonyID, purpose Purpose, nonce []byte, ttl time.Duration) (Ceremony, error) {
	if err := validUUID("ceremony id", string(id)); err != nil {
		return Ceremony{}, err
	}
	if err := validSize("the ceremony's nonce", nonce, nonceSize, nonceSize); err != nil {
		return Ceremony{}, err
	}
	life, err := lifetime(ttl)
	if err != nil {
		return Ceremony{}, err
	}
	if _, taken := x.Ceremony(id); taken {
		return Ceremony{}, refuse(CodeExists, "ceremony %s exists", id)
	}
	if other, ok := x.OpenCeremony(purpose); ok {
		return Ceremony{}, refuse(CodeConflict, "the %s ceremony %s is open: go on with it, or abort it", purpose, other.ID)
	}
	return Ceremony{
		ID: id, Purpose: purpose, StartedBy: x.entry.Actor, StartedAt: x.now, StartedIndex: x.index, ExpiresAt: x.due(life), Nonce: nonce,
	}, nil
}

// begin stores a ceremony that newCeremony checked, dropping the oldest closed one beyond the number kept. At most one a
// purpose is open, so there always is a closed one to drop.
func (x *execution) begin(c Ceremony, detail string) Ceremony {
	kept := slices.Clone(x.ceremonies)
	if len(kept) >= MaxCeremonies {
		oldest := slices.IndexFunc(kept, func(c Ceremony) bool { return !c.open() })
		kept = slices.Delete(kept, oldest, oldest+1)
	}
	x.ceremonies = append(kept, c)
	x.result.Ceremony = c.ID
	to := c.Phase
	c.Phase = ""
	return x.note(c, "", "start", strings.TrimSpace("purpose="+string(c.Purpose)+" "+detail), to)
}

// note adds a line to the minutes, moves the ceremony to a phase, stores it and tells the log. who is empty for the actor.
func (x *execution) note(c Ceremony, who, action, detail string, to Phase) Ceremony {
	if who == "" {
		who = string(x.entry.Actor)
	}
	// The bound is far beyond what a ceremony of MaxCustodians can need; the log has every line whatever happens here.
	if len(c.Steps) < maxSteps {
		c.Steps = append(slices.Clip(c.Steps), CeremonyStep{At: x.now, Index: x.index, Who: who, Action: action, Detail: detail})
	}
	e := Event{Action: "ceremony." + action, Subject: ceremonySubject(c.ID), SubjectID: string(c.ID), Reason: c.Reason, Detail: detail}
	if c.Phase != to {
		e.From, e.To = string(c.Phase), string(to)
	}
	c.Phase = to
	if !c.open() {
		c.EndedAt = x.now
	}
	x.putCeremony(c)
	x.result.Ceremony = c.ID
	x.emit(e)
	return c
}

func (x *execution) putCeremony(c Ceremony) {
	i := slices.IndexFunc(x.ceremonies, func(have Ceremony) bool { return have.ID == c.ID })
	if i < 0 {
		panic(fmt.Sprintf("fsm: index %d: storing ceremony %s, which is not among the %d kept", x.index, c.ID, len(x.ceremonies)))
	}
	x.ceremonies = slices.Clone(x.ceremonies)
	x.ceremonies[i] = c
}

func (x *execution) abort(c Ceremony, reason string) {
	c.Reason = reason
	x.note(c, "", "abort", "purpose="+string(c.Purpose), PhaseAborted)
}

// inPhase finds an open ceremony by id and insists on what it is and where it stands.
func (x *execution) inPhase(id CeremonyID, purpose Purpose, phase Phase) (Ceremony, error) {
	c, ok := x.Ceremony(id)
	switch {
	case !ok || c.Purpose != purpose:
		return Ceremony{}, refuse(CodeCeremony, "no %s ceremony %q: see conclave ceremony status", purpose, clip(string(id)))
	case c.Phase == PhaseAborted:
		return Ceremony{}, refuse(CodeCeremony, "ceremony %s was aborted (%s): start another", id, c.Reason)
	case c.Phase != phase:
		return Ceremony{}, refuse(CodeCeremony, "ceremony %s is in phase %s and not in phase %s", id, c.Phase, phase)
	default:
		return c, nil
	}
}

func (x *execution) abortCeremony(c AbortCeremony) error {
	if strings.TrimSpace(c.Reason) == "" {
		return invalid("aborting a ceremony needs a reason: it goes into the minutes")
	}
	if err := ValidReason(c.Reason); err != nil {
		return err
	}
	named, ok := x.Ceremony(c.Ceremony)
	switch {
	case !ok:
		return refuse(CodeNotFound, "no ceremony %q", clip(string(c.Ceremony)))
	case !named.open():
		return refuse(CodeCeremony, "ceremony %s is %s already", named.ID, named.Phase)
	}
	x.abort(named, c.Reason)
	return nil
}
