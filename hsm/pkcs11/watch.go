//go:build cgo && unix

package pkcs11

import (
	"errors"
	"sync"
)

// hungBeats is after how many beats a call that has not returned counts as hung: longer than any device takes for an RSA key of 4096 bits.
const hungBeats = 24

var errHung = errors.New("a call of the module has not returned for " + (hungBeats * beat).String() + "; if it never does, restart the process")

// watch knows how long the calls under way have been. It counts beats of the supervisor and reads no clock: a call takes microseconds, and so
// would the reading. C cannot be cancelled, so all that follows from a hung call is that nobody else waits behind it: the token is
// sealed, and rebuilt when the call has returned after all.
type watch struct {
	mu   sync.Mutex
	now  uint64
	next uint64
	from map[uint64]uint64 // beat at its beginning, by the number of a call
}

func newWatch() *watch { return &watch{from: make(map[uint64]uint64)} }

// enter notes a call, and gives the number to leave with.
func (w *watch) enter() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.from[w.next] = w.now
	return w.next
}

func (w *watch) leave(call uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.from, call)
}

// tick counts a beat, and reports whether some call is hung.
func (w *watch) tick() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now++
	for _, from := range w.from {
		if w.now-from >= hungBeats {
			return true
		}
	}
	return false
}
