package fsm

import (
	"errors"
	"testing"
)

// TestAllRequestsTogetherAreBounded: two million entries would take the time of a hundred other tests, so the rule is asked.
func TestAllRequestsTogetherAreBounded(t *testing.T) {
	for _, c := range []struct {
		level   uint32
		n       int
		refused bool
	}{{1, MaxAllRequests, false}, {2, MaxAllRequests - 1, false}, {2, MaxAllRequests, true}, {2, MaxAllRequests + 1, true}} {
		s := newState()
		s.cluster.FeatureLevel = c.level
		var r *refusal
		if err := s.roomForRequest(c.n); errors.As(err, &r) != c.refused || c.refused && r.code != CodeLimit {
			t.Errorf("level %d, %d requests: %v", c.level, c.n, err)
		}
	}
}
