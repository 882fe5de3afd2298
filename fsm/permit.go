package fsm

import (
	"errors"
	"fmt"
)

// Operation is a use of a key.
type Operation uint8

const (
	OpEncrypt Operation = iota + 1
	OpDecrypt
	OpSign
	OpVerify // with the public half
	OpMAC
	OpVerifyMAC
	OpDataKey
	OpDerive        // agree on a secret that others' protection will rest on
	OpEncapsulate   // with the public half
	OpDecapsulate   // open what was encapsulated for the key: a decryption
	OpEncryptPublic // with the public half of a decryption key
	OpExport        // hand the material out, wrapped to somebody's key
	OpRewrap        // decrypt what an old version protected, to protect it anew with the primary one, within the node
)

var operationNames = [...]string{
	OpEncrypt: "encrypt", OpDecrypt: "decrypt", OpSign: "sign", OpVerify: "verify", OpMAC: "mac", OpVerifyMAC: "verify-mac", OpDataKey: "datakey",
	OpDerive: "derive", OpEncapsulate: "encapsulate", OpDecapsulate: "decapsulate", OpEncryptPublic: "encrypt-public",
	OpExport: "export", OpRewrap: "rewrap",
}

// String is the operation's name as users type it.
func (op Operation) String() string {
	if op != 0 && int(op) < len(operationNames) {
		return operationNames[op]
	}
	return fmt.Sprintf("operation %d", uint8(op))
}

// Permission is the verdict on one use.
type Permission struct {
	Allowed bool
	Warning string // the use is allowed, but whoever relies on it must hear this
	Code    Code   // of a refusal: CodeState, CodeNeedsApproval, CodeDenied or CodeInvalid
	Message string // of a refusal: why, and what to do
}

// Permit is NIST SP 800-57 Part 1 Rev. 5 §7 as a table: may op be done with version v of a key of class c (State.Class), for reason? It is
// evaluated before and after every use; it knows nothing of leases, roles or which version is primary.
//
// What the state forbids for good is refused as that, also where the class asks for approvals: no number of approvals helps.
func Permit(op Operation, c Class, v KeyVersion, reason string) Permission {
	if c.Name == "" {
		return denyUse(CodeInvalid, "the key's class is not known")
	}
	state := v.State
	var p Permission
	switch op {
	case OpEncrypt, OpSign, OpMAC, OpDataKey, OpDerive, OpEncapsulate, OpEncryptPublic:
		p = permitProtection(op, state)
	case OpDecrypt, OpVerifyMAC, OpDecapsulate:
		p = permitProcessing(op, c, v, reason)
	case OpVerify:
		p = permitVerify(state)
	case OpExport:
		p = permitExport(c, v)
	case OpRewrap:
		p = permitRewrap(c, v)
	default:
		return denyUse(CodeInvalid, "%s is not known", op)
	}
	if a := c.Approval(ApprovalUse); p.Allowed && a.Quorum > 0 && usesSecret(op) {
		return denyUse(CodeNeedsApproval, "class %s needs %d approvals for %s, which this release cannot collect", c.Name, a.Quorum, op)
	}
	return p
}

// PermitFor is Permit with what the key says beyond its class: a key that is never to be exported is not, whatever the class permits.
func PermitFor(op Operation, c Class, k *Key, v KeyVersion, reason string) Permission {
	p := Permit(op, c, v, reason)
	if p.Allowed && op == OpExport && k.NeverExportable {
		return denyUse(CodeState, "the key is never to be exported, which cannot be taken back")
	}
	return p
}

// usesSecret excludes what a receiver does to check, because verifying creates nothing that others would rely on, and what anybody can do
// with the public half.
func usesSecret(op Operation) bool {
	switch op {
	case OpVerify, OpVerifyMAC, OpEncapsulate, OpEncryptPublic:
		return false
	}
	return true
}

func allowUse() Permission { return Permission{Allowed: true} }

func warnUse(state KeyState) Permission {
	return Permission{Allowed: true, Warning: fmt.Sprintf("the key version is %s: do not rely on what was made with it since", state)}
}

func denyUse(code Code, format string, args ...any) Permission {
	return Permission{Code: code, Message: fmt.Sprintf(format, args...)}
}

// permitProtection: new protection is made with active keys only.
func permitProtection(op Operation, state KeyState) Permission {
	if state == StateActive {
		return allowUse()
	}
	return denyUse(CodeState, "the key version is %s: %s needs an active one; %s", state, op, remedy(state))
}

// permitProcessing: data that was protected while the key was good may be processed longer.
func permitProcessing(op Operation, c Class, v KeyVersion, reason string) Permission {
	switch state := v.State; state {
	case StateDeactivated:
		if v.processingEnded() {
			return denyUse(CodeState, "the key version is deactivated, and the recipient period of class %s ended at %s: %s is not possible any more", c.Name, stamp(v.Dates.ProcessingEndedAt), op)
		}
		return allowUse()
	case StateActive:
		return allowUse()
	case StateSuspended:
		return permitSuspended(op, c, reason)
	case StateCompromised:
		return denyUse(CodeNeedsApproval, "the key version is compromised: %s needs a quorum's approval, which this release cannot collect", op)
	default:
		return denyUse(CodeState, "the key version is %s: %s is not possible; %s", state, op, remedy(state))
	}
}

// permitExport: what may be used in earnest, or could be, may leave, where class and birth permit it. What is in doubt stays where it is.
func permitExport(c Class, v KeyVersion) Permission {
	switch v.State {
	case StatePreActive, StateActive, StateDeactivated:
	default:
		return denyUse(CodeState, "the key version is %s: its material is not exported; %s", v.State, remedy(v.State))
	}
	if !c.Export {
		return denyUse(CodeState, "class %s never exports", c.Name)
	}
	if !v.Exportable {
		return denyUse(CodeState, "the key version was not made exportable, and what was not never is: create another key (key create --exportable)")
	}
	var no *refusal
	if errors.As(c.permits("export"), &no) {
		return denyUse(no.code, "%s", no.message)
	}
	return allowUse()
}

// permitRewrap: in time, everything that protects still moves to the primary version. Past the recipient period it does not, else that period would
// end nothing: who may rewrap may decrypt the result.
func permitRewrap(c Class, v KeyVersion) Permission {
	switch v.State {
	case StateActive, StateDeactivated, StateCompromised:
		return permitProcessing(OpRewrap, c, v, "")
	default:
		return denyUse(CodeState, "the key version is %s: %s is not possible; %s", v.State, OpRewrap, remedy(v.State))
	}
}

// permitSuspended: whether the suspicion proves true is open, so only a class that accepts the risk goes on, and says why.
func permitSuspended(op Operation, c Class, reason string) Permission {
	switch {
	case !c.DecryptWhileSuspended:
		return denyUse(CodeState, "the key version is suspended and class %s does not permit %s until it is resumed; %s", c.Name, op, remedy(StateSuspended))
	case reason == "":
		return denyUse(CodeState, "the key version is suspended: class %s permits %s only with a reason", c.Name, op)
	case ValidReason(reason) != nil:
		return denyUse(CodeInvalid, "the reason has at most %d bytes of UTF-8 without control characters", MaxReason)
	default:
		return allowUse()
	}
}

// permitVerify: the public half harms nobody, so it serves as long as it is kept, and says what became of the private one.
func permitVerify(state KeyState) Permission {
	switch state {
	case StateActive, StateDeactivated:
		return allowUse()
	case StateSuspended, StateCompromised, StateDestroyScheduled, StateDestroying, StateDestroyed, StateDestroyedCompromised:
		return warnUse(state)
	default:
		return denyUse(CodeState, "the key version is %s: nothing can have been signed with it; %s", state, remedy(state))
	}
}

// remedy says what to do about a state.
func remedy(state KeyState) string {
	switch state {
	case StatePreActive:
		return "wait for its activation, or activate it now (key activate)"
	case StateSuspended:
		return "resume it (key resume) or rotate the key (key rotate)"
	case StateDeactivated, StateCompromised:
		return "rotate the key (key rotate) and use the new version"
	case StateDestroyScheduled:
		return "cancel the destruction (key cancel-destroy) or create another key"
	default:
		return "create another key"
	}
}
