// Package pkcs11 is a token of a PKCS#11 module (Cryptoki 2.40): hsm.Token and keyuse.Port on a device's own cryptography. Keys
// are made, wrapped, unwrapped and used inside the device; what comes out is wrapped.
//
// It needs cgo. A binary without it has the same identifiers, Available is false, and the functions say why. It is tested on
// SoftHSM 2.6.1, which has no hardware boundary either; Info.HardwareSafe tells.
//
// Sessions of a token
//
//	root     holds the login for the life of the Token. Does nothing else, and is closed last.
//	master   owns the three master objects and every working copy; closed to seal. It is used alone, under a lock, to unwrap and to
//	         destroy.
//	worker   a pool with exclusive checkout: a session used by two threads at once crashes real modules. All operations run here,
//	         with the handles of objects that the master session owns.
//	others   opened for one administrative act (probe, kept masters), so that it does not queue behind operations.
//
// Invariants
//
//   - A module is initialised once in a process, whatever tokens of it are open, and finalised after the last was drained and
//     closed. C_Logout is never called: it would destroy the session objects of the other users of the login.
//   - Nothing is believed of a module that was not tried at the start: see probe.go. One that computes wrongly or does not
//     enforce its attributes is refused (ErrModule).
//   - A PIN is tried once for each call of Open or Create, and once for each rebuilding (below). One that the device refuses is never
//     tried again: devices count.
//   - A session on which anything is left active (CKR_OPERATION_ACTIVE) is closed and replaced. Objects made on the way are
//     destroyed on every path; what cannot be destroyed goes with its session.
//   - An unwrapped key is handed out only after it proved to be what its binding says.
//   - Masters are kept by objects of the token; a record written last says which ones count (kept.go has the order and why).
//
// # Devices that misbehave
//
// What a module answers is of one of these classes (ckr.go):
//
//	plain    refusals and bad data: told to the caller, never repeated. Unwrapping and decrypting have one error for all of them
//	dropped  the object behind a handle is gone (0x82, 0x60, 0xF0, 0x113): hsm.ErrHandle for a working copy, which the caller opens
//	         again, once; for a master or a node key it is a loss
//	busy     0x90: the session is replaced, and the operation runs once more
//	limit    0xB1: the workers go on with the sessions they have; the operator is told once
//	doubt    0x5, 0x6: told to the caller, and the device is looked at; two bad looks in a row are a loss
//	lost     0xB3, 0xB0, 0x101, 0x190, 0x30, 0x31, 0x32, 0xE0, 0xE1, 0x3: see below
//	stop     the PIN is refused (0xA0 to 0xA4, 0x102)
//
// A loss seals the token at once: every method fails with hsm.ErrSealed and hsm.ErrLost, the operator is told by one ERROR. The
// supervisor, the one goroutine of a Token, waits until nobody calls the module any more, then tries to bring it back: after 0.25 s,
// then twice as long each time, half a minute at most, until Close. It looks for the serial only, ends the old login, logs in, and
// takes the token for the same if the node's public keys are the same, the identity key signs, and the module still enforces its
// attributes. From the second try on it finalises and initialises the module first, unless another token of it is open. Then
// identity, exchange and random work again, by the same Go values; masters are gone, so the token is sealed until an import or
// RestoreMaster. It is given up for good, with another ERROR, if the PIN is refused, or the token is not the one that it was.
//
// The PIN is kept for that, in locked memory outside the Go heap, and wiped at Close. An idle device is looked at every 5 s.
//
// Locks: drain.Turns serialises what changes the master session and what is kept. session.mu guards the handle of the master
// session for one call. The state of modules is under modules.mu, which is held during C_Initialize and C_Finalize. No lock is
// held while waiting for a worker session but the turn. Each Token has one goroutine, the supervisor; Close waits for it. Whoever opens,
// makes or initialises a token waits for a goroutine that does it, and gives up on a module that does not answer (patience.go).
package pkcs11
