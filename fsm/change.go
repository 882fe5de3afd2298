package fsm

import (
	"strings"
	"time"
)

// stamp writes a time as the log's details do.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// checkChange checks what the action demands of the order itself, and fills in the class's waiting time.
func (x *execution) checkChange(c ChangeKey, k Key) (ChangeKey, error) {
	c, err := x.checkReason(c)
	if err != nil {
		return c, err
	}
	if err := x.checkOccurred(c); err != nil {
		return c, err
	}
	if c.Action != ActionDestroy {
		if c.After != 0 {
			return c, invalid("only destroy takes a waiting time, not %s", c.Action)
		}
		return c, nil
	}
	return x.checkWait(c, k)
}

func (x *execution) checkReason(c ChangeKey) (ChangeKey, error) {
	switch c.Action {
	case ActionSuspend, ActionDeactivate, ActionCompromise, ActionRevoke:
		if strings.TrimSpace(c.Reason) == "" {
			return c, invalid("%s needs a reason (--reason): it is evidence for auditors", c.Action)
		}
	case ActionActivate, ActionResume, ActionDestroy, ActionCancelDestroy:
	default:
		return c, invalid("%q is no action on a key", clip(string(c.Action)))
	}
	if c.Action == ActionRevoke {
		r, err := ParseRevocation(c.Reason)
		if err != nil {
			return c, err
		}
		c.Reason = r.String()
	}
	return c, ValidReason(c.Reason)
}

// demandChange: what takes a right away in an emergency needs nobody's approval; what cannot be undone, or gives back, may.
func (x *execution) demandChange(c ChangeKey, k Key) error {
	action := c.meaning()
	if action == ActionSuspend || action == ActionCompromise {
		return nil
	}
	return x.demand(k.Class, string(action))
}

// meaning is the action that a revocation comes to.
func (c ChangeKey) meaning() KeyAction {
	if c.Action == ActionRevoke {
		return revokedAs(c.Reason)
	}
	return c.Action
}

func (x *execution) checkOccurred(c ChangeKey) error {
	switch {
	case c.OccurredAt.IsZero():
		return nil
	case c.meaning() != ActionCompromise:
		return invalid("only a compromise has a date at which it occurred, not %s", c.Action)
	case c.OccurredAt.After(x.now):
		return invalid("a compromise at %s lies after the log's time, %s", stamp(c.OccurredAt), stamp(x.now))
	default:
		return nil
	}
}

// checkWait: the waiting time is the users' last chance to notice, so the class sets its least.
func (x *execution) checkWait(c ChangeKey, k Key) (ChangeKey, error) {
	class, ok := x.Class(k.Class)
	if !ok {
		return c, refuse(CodeInvalid, "key %s has the unknown class %s", k.Name, k.Class)
	}
	switch {
	case c.After == 0:
		c.After = class.MinDestroyWait
	case c.After < class.MinDestroyWait:
		return c, invalid("class %s keeps a key at least %s before its destruction, not %s", class.Name, class.MinDestroyWait, c.After)
	case c.After > MaxDestroyWait:
		return c, invalid("a destruction is scheduled at most %s ahead, not %s", MaxDestroyWait, c.After)
	}
	c.After = c.After.Truncate(time.Millisecond) // the log's resolution
	return c, nil
}

// fitting lists the versions to change, ascending; CodeState when there is none.
func fitting(k Key, c ChangeKey, level uint32) ([]Version, error) {
	if c.Version != 0 {
		v, ok := k.Version(c.Version)
		if !ok {
			return nil, refuse(CodeNotFound, "key %s has no version %d", k.Name, c.Version)
		}
		if _, ok := targetOf(c, v, level); !ok {
			return nil, misfit(k, c, v)
		}
		return []Version{v.Version}, nil
	}
	var fit []Version
	for _, v := range k.Versions {
		if c.Action == ActionDestroy && v.State == StateActive {
			return nil, misfit(k, c, v)
		}
		if _, ok := targetOf(c, v, level); ok {
			fit = append(fit, v.Version)
		}
	}
	if len(fit) == 0 {
		return nil, misfit(k, c, k.PrimaryVersion())
	}
	return fit, nil
}

// misfit names the state that is in the way, and what to do.
func misfit(k Key, c ChangeKey, v KeyVersion) error {
	if v.State == StateDestroyScheduled && v.Before == StateCompromised && c.meaning() == ActionCompromise {
		return refuse(CodeState, "key %s version %d is %s, and its compromise is recorded already: see its dates (conclave key get)", k.Name, v.Version, v.State)
	}
	return refuse(CodeState, "key %s version %d is %s: %s is not possible; %s", k.Name, v.Version, v.State, c.Action, advice(c.Action, v.State))
}

func advice(action KeyAction, from KeyState) string {
	switch {
	case action == ActionDestroy && from == StateActive:
		return "an active version is never destroyed, so deactivate it first (conclave key deactivate)"
	case action == ActionActivate:
		return "only a pre-active version is activated"
	case action == ActionResume:
		return "only a suspended version is resumed"
	case action == ActionCancelDestroy:
		return "only a scheduled destruction is cancelled"
	case from == StateDestroyScheduled:
		return "cancel the destruction first (conclave key cancel-destroy)"
	case from == StateDestroying || from == StateDestroyed || from == StateDestroyedCompromised:
		return "a destruction cannot be undone"
	default:
		return "see the states of its versions (conclave key get)"
	}
}
