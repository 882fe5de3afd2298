package soft

import (
	"sync"

	"github.com/conclave-vault/conclave/hsm/internal/memlock"
)

const (
	slotSize  = 64       // every secret kept here is a key of at most 512 bits
	chunkSize = 32 << 10 // 512 slots; below the lock limit of 64 KiB that older systems grant to a process
)

// region hands out slots of memory that is locked and left out of core dumps where the system allows. It grows by chunks and
// gives none back before close.
type region struct {
	mu     sync.Mutex
	chunks [][]byte
	free   [][]byte
	fault  error // why some chunk is not protected; nil: all are
	closed bool
}

// keep moves secret (at most slotSize bytes) into a slot: the argument is wiped. The caller gives the slot back.
func (r *region) keep(secret []byte) []byte {
	slot := r.hold(secret)
	clear(secret)
	return slot
}

// hold copies secret (at most slotSize bytes) into a slot, and returns as much of the slot. The caller gives it back.
func (r *region) hold(secret []byte) []byte {
	slot := r.take()
	return slot[:copy(slot, secret)]
}

func (r *region) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) == 0 {
		r.grow()
	}
	slot := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	return slot
}

func (r *region) grow() {
	chunk, err := memlock.Memory(chunkSize)
	if err != nil && r.fault == nil {
		r.fault = err
	}
	r.chunks = append(r.chunks, chunk)
	for i := 0; i < chunkSize; i += slotSize {
		r.free = append(r.free, chunk[i:i+slotSize:i+slotSize])
	}
}

// give wipes a slot and takes it back. After close it does nothing: the memory is gone.
func (r *region) give(slot []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || slot == nil {
		return
	}
	slot = slot[:slotSize]
	clear(slot)
	r.free = append(r.free, slot)
}

// protection says in a few words what the system granted.
func (r *region) protection() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault != nil {
		return "memory not locked: " + r.fault.Error()
	}
	return "memory locked"
}

func (r *region) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, chunk := range r.chunks {
		clear(chunk)
		memlock.Release(chunk)
	}
	r.closed, r.chunks, r.free = true, nil, nil
}
