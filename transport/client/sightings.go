package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/conclave-vault/conclave/transport/kind"
)

// MetaRequestID names, in an error's metadata, the request id under which a write whose outcome is unknown can be repeated.
const MetaRequestID = "request_id"

// informative orders the kinds that make a call go to another node, the most informative first: that the change is
// committed, that no one could be trusted, that people must act; then plain outages, then silence.
var informative = []kind.Kind{kind.BarrierPending, kind.Unauthenticated, kind.Sealed, kind.Uninitialised, kind.Unavailable, kind.Deadline}

// sightings remembers what each node said during one call that none of them has decided yet.
type sightings struct {
	requestID string
	order     []string
	last      map[string]error // by address
	committed error            // a BARRIER_PENDING: stays true whatever is seen later
}

func newSightings(requestID string) *sightings {
	return &sightings{requestID: requestID, last: map[string]error{}}
}

// add records err. Silence because the caller's own time is up does not displace what the node said before.
func (s *sightings) add(ctx context.Context, address string, err error) {
	if kind.Of(err) == kind.BarrierPending {
		s.committed = err
	}
	if _, known := s.last[address]; !known {
		s.order = append(s.order, address)
	} else if ctx.Err() != nil && kind.Of(err) == kind.Deadline {
		return
	}
	s.last[address] = err
}

// hopeful reports whether waiting may help: an outage may pass and a barrier falls, but a sealed node waits for people and a
// certificate does not get better.
func (s *sightings) hopeful() bool {
	for _, err := range s.last {
		switch kind.Of(err) {
		case kind.Unavailable, kind.BarrierPending, kind.Deadline:
			return true
		}
	}
	return false
}

// err is the error of a call that no node decided.
func (s *sightings) err() error {
	best := s.best()
	metadata := maps.Clone(kind.Metadata(best))
	if s.requestID != "" {
		if metadata == nil {
			metadata = map[string]string{}
		}
		metadata[MetaRequestID] = s.requestID
	}
	k := kind.Of(best)
	if k == kind.BarrierPending {
		return kind.New(k, best.Error(), metadata) // it is committed: what other nodes said is beside the point
	}
	return kind.New(k, s.everyNode(k), metadata)
}

func (s *sightings) best() error {
	if s.committed != nil {
		return s.committed
	}
	for _, k := range informative {
		for _, address := range s.order {
			if err := s.last[address]; kind.Of(err) == k {
				return err
			}
		}
	}
	return s.last[s.order[0]]
}

// everyNode says of each node what it said, those of kind k first.
func (s *sightings) everyNode(k kind.Kind) string {
	sorted := slices.Clone(s.order)
	slices.SortStableFunc(sorted, func(a, b string) int { return rank(s.last[a], k) - rank(s.last[b], k) })
	parts := make([]string, len(sorted))
	for i, address := range sorted {
		parts[i] = fmt.Sprintf("%s: %s", address, words(s.last[address]))
	}
	return strings.Join(parts, "; ")
}

func rank(err error, k kind.Kind) int {
	if kind.Of(err) == k {
		return 0
	}
	return 1
}

func words(err error) string {
	if k := kind.Of(err); k == kind.Deadline {
		return k.Meaning()
	}
	return err.Error()
}
