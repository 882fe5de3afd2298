package fsm

import "time"

// requestKey is a request id and the actor whose it is, in text: a UUIDv7 begins with its time, so the order of keys is the
// order of ages, and the oldest is the first.
type requestKey string

const requestIDLength = 36

func newRequestKey(id RequestID, who Actor) requestKey { return requestKey(string(id) + string(who)) }

func (k requestKey) id() RequestID { return RequestID(k[:requestIDLength]) }
func (k requestKey) actor() Actor  { return Actor(k[requestIDLength:]) }

// request is what is remembered of a successful one. A refused request is not remembered: it changed nothing, and may come
// again with the same id when its cause is mended.
type request struct {
	hash   [32]byte
	result Result
}

// admissibleRequest checks the id. Older than the horizon means that its first result may have been forgotten, so it is
// never executed; ahead of the log means that the client's clock, or the leader's, is wrong.
func (x *execution) admissibleRequest() error {
	id := x.entry.RequestID
	if id == "" {
		if proposedByNodes(x.entry.Command) {
			return nil
		}
		return invalid("a client's request carries a request id")
	}
	at, ok := uuidTime(string(id))
	switch {
	case !ok:
		return invalid("request id %q is no UUIDv7 in canonical lower-case form", clip(string(id)))
	case at.Before(x.now.Add(-RequestHorizon)):
		return refuse(CodeRequestExpired, "request id %s is older than %s and is not executed again: check what became of it, then use a new id", id, RequestHorizon)
	case at.After(x.now.Add(RequestHorizon)):
		return invalid("request id %s is of a time more than %s ahead of the cluster: check the client's clock", id, RequestHorizon)
	}
	x.key = newRequestKey(id, x.entry.Actor)
	return x.admissibleRepeat(x.key)
}

func (x *execution) admissibleRepeat(key requestKey) error {
	r, ok := x.requests.Get(key)
	switch {
	case ok && r.hash != x.entry.RequestHash:
		return refuse(CodeRequestReused, "request id %s was used for another request: use a new id", key.id())
	case !ok && x.requestsOf(key.actor()) >= MaxRequests:
		return refuse(CodeLimit, "%d requests of one identity within %s: wait, or spread them over identities", MaxRequests, RequestHorizon)
	case !ok:
		return x.roomForRequest(x.requests.Len())
	default:
		return nil
	}
}

// levelOfAllRequests: a limit decides what is refused, so it begins with a level.
const levelOfAllRequests = 2

// roomForRequest keeps many identities together from filling the memory of every node.
func (s *State) roomForRequest(remembered int) error {
	if s.FeatureLevel() < levelOfAllRequests || remembered < MaxAllRequests {
		return nil
	}
	return refuse(CodeLimit, "%d requests within %s, which is the limit of the cluster: wait", remembered, RequestHorizon)
}

// remembered returns the first result of a repeated request.
func (x *execution) remembered() (Result, bool) {
	if x.entry.RequestID == "" {
		return Result{}, false
	}
	r, ok := x.requests.Get(x.key)
	if !ok {
		return Result{}, false
	}
	first := r.result
	first.Repeat = true
	return first, true
}

func (x *execution) remember() {
	if x.entry.RequestID != "" {
		x.addRequest(x.key, &request{hash: x.entry.RequestHash, result: x.result})
	}
}

func (s *State) addRequest(key requestKey, r *request) {
	s.requests.Set(key, r)
	s.countRequest(key.actor())
}

func (s *State) countRequest(who Actor) { s.perActor.Set(who, s.requestsOf(who)+1) }

func (s *State) requestsOf(who Actor) int {
	n, _ := s.perActor.Get(who)
	return n
}

// forgetRequests evicts what is past the horizon: exactly the ids that admissibleRequest refuses from now on.
func (x *execution) forgetRequests() {
	horizon := x.now.Add(-RequestHorizon)
	for {
		key, _, ok := x.requests.Min()
		if !ok || !olderThan(key, horizon) {
			return
		}
		x.requests.Delete(key)
		if n := x.requestsOf(key.actor()) - 1; n > 0 {
			x.perActor.Set(key.actor(), n)
		} else {
			x.perActor.Delete(key.actor())
		}
	}
}

func olderThan(key requestKey, horizon time.Time) bool {
	at, _ := uuidTime(string(key.id()))
	return at.Before(horizon)
}
