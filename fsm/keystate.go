package fsm

import "fmt"

var stateNames = [...]string{
	StateUnknown: "unknown", StatePreActive: "pre-active", StateActive: "active", StateSuspended: "suspended",
	StateDeactivated: "deactivated", StateCompromised: "compromised", StateDestroyScheduled: "destroy-scheduled",
	StateDestroying: "destroying", StateDestroyed: "destroyed", StateDestroyedCompromised: "destroyed-compromised",
}

// String is the state's name as users, events and the API write it.
func (s KeyState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// String is the barrier's state as users see it; empty for none.
func (b BarrierState) String() string {
	switch b {
	case BarrierPending:
		return "pending"
	case BarrierDone:
		return "done"
	default:
		return ""
	}
}
