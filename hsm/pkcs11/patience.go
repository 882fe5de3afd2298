//go:build cgo && unix

package pkcs11

import (
	"bytes"
	"fmt"
	"sync/atomic"
)

// starting is what Initialize, Create and Open do, as long as somebody waits for it.
type starting struct{ givenUp atomic.Bool }

// proceed is asked before each step that changes a token or counts as a try of its PIN: whoever gave up was told that nothing was done.
func (s *starting) proceed() error {
	if s.givenUp.Load() {
		return ErrHung
	}
	return nil
}

// patiently runs f, which calls the module, and gives up after opt.Start: C cannot be cancelled, and a node that stands still at its start
// without a word helps nobody. What f makes after that is undone. f has PINs of its own, because the caller wipes his when he is answered.
func patiently[T any](opt Options, what string, pins [][]byte, f func(s *starting, pins [][]byte) (T, error), undo func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	opt = opt.withDefaults()
	own := make([][]byte, len(pins))
	for i, pin := range pins {
		own[i] = bytes.Clone(pin)
	}
	s, done := new(starting), make(chan result, 1)
	go func() {
		defer func() {
			for _, pin := range own {
				clear(pin)
			}
		}()
		value, err := f(s, own)
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-opt.After(opt.Start):
	}
	s.givenUp.Store(true)
	go func() {
		if r := <-done; r.err == nil {
			undo(r.value)
		}
	}()
	var none T
	return none, fmt.Errorf("%s with %s: %w within %s; look at the device, its connection and the vendor's service, restart them, and start this program again",
		what, opt.Module, ErrHung, opt.Start)
}
