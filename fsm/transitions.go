package fsm

import "time"

// target is NIST SP 800-57 Part 1 Rev. 5 §7.3 as far as users order it: the states from which each action leads, and to
// where. Destroy-scheduled returns by cancel to the state before, which is never active. Destroying and destroyed are reached by dates and
// receipts, which have entries of their own (ExecuteDue, RecordErasure).
func target(action KeyAction, from KeyState) (KeyState, bool) {
	switch action {
	case ActionActivate:
		return StateActive, from == StatePreActive
	case ActionSuspend:
		return StateSuspended, from == StateActive
	case ActionResume:
		return StateActive, from == StateSuspended
	case ActionDeactivate:
		return StateDeactivated, from == StateActive || from == StateSuspended
	case ActionCompromise:
		return compromiseTarget(from)
	case ActionDestroy:
		ok := from == StatePreActive || from == StateSuspended || from == StateDeactivated || from == StateCompromised
		return StateDestroyScheduled, ok
	default:
		return StateUnknown, false
	}
}

// compromiseTarget: what is learnt after the destruction is recorded too, because data protected under the key may be read.
func compromiseTarget(from KeyState) (KeyState, bool) {
	switch from {
	case StatePreActive, StateActive, StateSuspended, StateDeactivated:
		return StateCompromised, true
	case StateDestroyed:
		return StateDestroyedCompromised, true
	default:
		return StateUnknown, false
	}
}

// targetOf adds the actions whose target depends on more than the state.
func targetOf(c ChangeKey, v KeyVersion, level uint32) (KeyState, bool) {
	switch action := c.meaning(); action {
	case ActionCompromise:
		if v.State == StateDestroyScheduled && level >= levelOfRigour { // it stays so, and a cancel finds it compromised
			return StateDestroyScheduled, v.Before != StateCompromised
		}
		return target(action, v.State)
	case ActionCancelDestroy:
		// Never to active: whatever was relied on while the destruction was announced may be gone elsewhere.
		return v.Before, v.State == StateDestroyScheduled && v.Before != StateActive && v.Before != StateUnknown
	default:
		return target(action, v.State)
	}
}

// revokedAs maps KMIP's revocation reason to NIST's state: a compromise compromises, everything else deactivates.
func revokedAs(reason string) KeyAction {
	if r, err := ParseRevocation(reason); err == nil && r.compromises() {
		return ActionCompromise
	}
	return ActionDeactivate
}

// changed returns v after c, at an index and a log time; to is what targetOf said.
func changed(v KeyVersion, c ChangeKey, to KeyState, index uint64, now time.Time) KeyVersion {
	from := v.State
	if from == to {
		v.Before, v.Reason = StateCompromised, c.Reason
		return v.compromised(c, now)
	}
	v.State, v.ChangedAt, v.ChangedIndex = to, now, index
	if c.Action != ActionDestroy && c.Action != ActionCancelDestroy && c.Action != ActionActivate {
		v.Reason = c.Reason // a destruction leaves the reason of the state to which a cancel returns; the log has its own
	}
	switch to {
	case StateActive:
		if c.Action == ActionActivate {
			v.ActivatedAt = now
			v.Dates = v.Dates.without(func(d *Dates) { d.ActivateAt = time.Time{} })
		}
	case StateCompromised, StateDestroyedCompromised:
		if from != StateDestroyScheduled { // a cancel returns to what was recorded then
			v = v.compromised(c, now)
		}
	case StateDestroyScheduled:
		v.Before, v.DestroyAt = from, now.Add(c.After)
		// What was planned for it is off: a cancelled destruction must not end in an activation by itself.
		v.Dates = v.Dates.without(func(d *Dates) { d.ActivateAt, d.DeactivateAt = time.Time{}, time.Time{} })
	}
	if from == StateDestroyScheduled {
		v.Before, v.DestroyAt = StateUnknown, time.Time{}
	}
	return v
}

func (v KeyVersion) compromised(c ChangeKey, now time.Time) KeyVersion {
	v.CompromisedAt, v.OccurredAt = now, c.OccurredAt
	if c.OccurredAt.IsZero() {
		v.OccurredAt = now
	}
	return v
}
