package ceremony

import "errors"

// Errors of dealing and combining.
var (
	// ErrDeal: threshold, number of shares, secret or commitments are outside their limits.
	ErrDeal = errors.New("ceremony: the deal is not acceptable")
	// ErrShare: a share is malformed, or does not lie on the dealt polynomial. The text names its number.
	ErrShare = errors.New("ceremony: the share does not verify")
	// ErrTooFewShares: fewer different shares than the threshold.
	ErrTooFewShares = errors.New("ceremony: too few shares")
	// ErrDuplicateShare: one share was given twice.
	ErrDuplicateShare = errors.New("ceremony: a share was given twice")
	// ErrEntropy: a contribution is of the wrong size, or is not the one that was committed to.
	ErrEntropy = errors.New("ceremony: the entropy does not match its commitment")
)

// Errors of sealed and signed values.
var (
	// ErrSeal: the value cannot be sealed: a bad exchange key or recipient, an incomplete Info, a value over the limit.
	ErrSeal = errors.New("ceremony: the value cannot be sealed")
	// ErrOpen: a sealed value does not open. One error for every cause, so that it is no oracle.
	ErrOpen = errors.New("ceremony: the sealed value does not open")
	// ErrSignature: a custodian's signature does not verify.
	ErrSignature = errors.New("ceremony: the signature does not verify")
	// ErrNotInRoster: the roster has no such custodian.
	ErrNotInRoster = errors.New("ceremony: the custodian is not in the roster")
)

// Errors of a custodian's identity.
var (
	// ErrIdentity: an identity file or a public card is malformed.
	ErrIdentity = errors.New("ceremony: the custodian identity is not valid")
	// ErrPassphrase: the passphrase does not open the identity file.
	ErrPassphrase = errors.New("ceremony: the passphrase does not open the identity")
	// ErrPermissions: others can read a file that holds a secret.
	ErrPermissions = errors.New("ceremony: the secret file can be read by others")
	// ErrPin: the roster is not the one this custodian took part in.
	ErrPin = errors.New("ceremony: the roster is not the pinned one")
	// ErrNoShare: the identity holds no such share.
	ErrNoShare = errors.New("ceremony: the identity holds no such share")
	// ErrShareHeld: the identity holds another share in force for this cluster and generation.
	ErrShareHeld = errors.New("ceremony: the identity holds a share in force already")
)
