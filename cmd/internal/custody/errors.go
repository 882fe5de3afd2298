package custody

import "errors"

// Errors of a custodian's part in a ceremony. Errors of the cluster come through as they are.
var (
	// ErrCeremony: there is no such ceremony to take part in, or it ended otherwise than well.
	ErrCeremony = errors.New("custody: the ceremony cannot go on")
	// ErrShown: what the node shows does not verify, or changed under way. Nothing was given to it after that.
	ErrShown = errors.New("custody: what the node shows does not verify")
	// ErrRefused: a node refused this custodian's share.
	ErrRefused = errors.New("custody: the share was refused")
)
