package store

import (
	"fmt"
	"sync"
)

// Fault latches the first failure of a disk. Its zero value is not usable; see NewFault.
type Fault struct {
	mu     sync.Mutex
	err    error
	failed chan struct{}
}

// NewFault returns a latch that has seen no failure.
func NewFault() *Fault { return &Fault{failed: make(chan struct{})} }

// Failed is closed by the first failure.
func (f *Fault) Failed() <-chan struct{} { return f.failed }

// Err returns the first failure, nil before it.
func (f *Fault) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// trip latches err and returns it with what was being done.
func (f *Fault) trip(doing string, err error) error {
	err = fmt.Errorf("%s: %w", doing, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		close(f.failed)
	}
	return err
}

// guard runs do unless the disk has failed before, and latches its error.
func (f *Fault) guard(doing string, do func() error) error {
	if err := f.Err(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return f.trip(doing, err)
	}
	return nil
}
