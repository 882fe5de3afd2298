package custody

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pollInterval is how often a waiting custodian looks: a person notices no half second, and a node answers it from memory.
const pollInterval = 500 * time.Millisecond

// Progress is told, in words for people, what happens. It is never told a secret.
type Progress func(text string)

func (p Progress) sayf(format string, args ...any) {
	if p != nil {
		p(fmt.Sprintf(format, args...))
	}
}

// Options of a ceremony. The zero value is good.
type Options struct {
	// Pause waits before the next look at the ceremony, or returns the context's error. nil: half a second.
	Pause func(ctx context.Context) error
	// Now is the clock that ends the waiting for an expired ceremony. nil: time.Now.
	Now func() time.Time
	// Roster, if not empty, is the hash in hexadecimal that the genesis roster must have: what custodians agreed on by telephone.
	Roster string
}

func (o Options) withDefaults() Options {
	if o.Pause == nil {
		o.Pause = pause
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func pause(ctx context.Context) error {
	t := time.NewTimer(pollInterval)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// transient reports whether the same call may succeed later: no leader, a node that just restarted.
func transient(ctx context.Context, err error) bool {
	code := status.Code(err)
	return ctx.Err() == nil && (code == codes.Unavailable || code == codes.DeadlineExceeded)
}

// persist repeats a call while its failure is transient. The call keeps its request id, so that a repetition does nothing twice.
func persist[R any](ctx context.Context, o Options, say Progress, call func() (R, error)) (R, error) {
	for told := ""; ; {
		r, err := call()
		if err == nil || !transient(ctx, err) {
			return r, err
		}
		if text := err.Error(); text != told {
			say.sayf("not answered, trying again: %s", text)
			told = text
		}
		if stop := o.Pause(ctx); stop != nil {
			return r, fmt.Errorf("%w (%w)", err, stop)
		}
	}
}

func newRequestID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("making a request id: %w", err)
	}
	return id.String(), nil
}
