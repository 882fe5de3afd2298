package hsm

import (
	"context"
	"fmt"
)

// Rewrapper is a Token that can move wrapped keys from one master generation to the next. A working copy cannot be wrapped, which
// is the point of it; so a rekey has the token take the old wrap keys once more, as handles that unwrap to what can be wrapped
// again (and still not be read). They exist between BeginRewrap and End, which is a custodians' ceremony.
//
// Nothing calls it yet but tests.
type Rewrapper interface {
	// BeginRewrap takes two generations of one cluster, from before to. One of them must be the open master: whoever has no master
	// open has no business here, and sealing the token ends the rewrapping too. from and to stay the caller's, who wipes them.
	// ErrInput, ErrSealed; ErrClosed.
	BeginRewrap(ctx context.Context, from, to *Master) (Rewrapping, error)
}

// Rewrapping is one such ceremony's hold on the token. It is safe for concurrent use.
type Rewrapping interface {
	// Rewrap checks k as keyuse.Port.Open does, and returns the same key wrapped under the other generation: binding and blob are
	// new, everything else in the binding is as it was. ErrGeneration if k is not of the first generation, ErrWrappedKey; ErrSealed
	// after the token was sealed, ErrClosed after End.
	Rewrap(ctx context.Context, k WrappedKey) (WrappedKey, error)
	// End destroys the handles, after what is under way. A second call does nothing.
	End()
}

// ValidateRewrap checks what BeginRewrap is given against the open master. ErrInput.
func ValidateRewrap(open MasterInfo, from, to *Master) error {
	for _, m := range []*Master{from, to} {
		if m == nil || len(m.Wrap) != masterKeySize || len(m.WrapExport) != masterKeySize || len(m.Bind) != masterKeySize {
			return fmt.Errorf("%w: a rekey needs two whole masters, of three keys of %d bytes", ErrInput, masterKeySize)
		}
	}
	switch {
	case from.ClusterID != open.ClusterID || to.ClusterID != open.ClusterID:
		return fmt.Errorf("%w: masters of another cluster than %q, which is open", ErrInput, open.ClusterID)
	case from.Generation == 0 || to.Generation <= from.Generation:
		return fmt.Errorf("%w: a rekey goes to a later generation, not from %d to %d", ErrInput, from.Generation, to.Generation)
	case open.Generation != from.Generation && open.Generation != to.Generation:
		return fmt.Errorf("%w: generation %d is open, a rekey is from %d to %d", ErrInput, open.Generation, from.Generation, to.Generation)
	}
	return nil
}
