package soft

import (
	"crypto/rand"
	"fmt"
	"io"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
)

// Options configures Create and Open. The zero value is right for production.
type Options struct {
	// Argon2 is the cost of turning the PIN into the key of a new keystore; zero: DefaultArgon2. Open takes the cost from the
	// file and ignores this.
	Argon2 Argon2
	// Random is the source of keys, salt and serial; nil: crypto/rand. Nonces, the randomness of ECDSA and RSA keys never come from here:
	// they are the crypto packages' own, because a repeated one would reveal a key. Calls are serialised.
	Random io.Reader
}

// Argon2 is a cost of argon2id (RFC 9106).
type Argon2 struct {
	Time      uint32 // passes, from 1
	MemoryKiB uint32 // from 8 per thread
	Threads   uint8  // from 1
}

// DefaultArgon2 is the second recommended choice of RFC 9106 §4 with two threads: about 0.1 s, once per start of a process.
func DefaultArgon2() Argon2 { return Argon2{Time: 3, MemoryKiB: 64 << 10, Threads: 2} }

// Limits of the cost. Open obeys the header of a file before anything in it is authenticated: without them a forged header
// could claim all memory of the host, or keep a processor busy for days.
const (
	maxArgon2Time      = 32
	maxArgon2MemoryKiB = 512 << 10
	maxArgon2Threads   = 16
)

// Validate checks the limits of a cost that somebody chose; zero stands for DefaultArgon2. hsm.ErrInput.
func (a Argon2) Validate() error {
	if a == (Argon2{}) {
		return nil
	}
	return a.validate()
}

func (a Argon2) validate() error {
	switch {
	case a.Time < 1 || a.Time > maxArgon2Time:
		return fmt.Errorf("%w: argon2 with %d passes, from 1 to %d are", hsm.ErrInput, a.Time, maxArgon2Time)
	case a.Threads < 1 || a.Threads > maxArgon2Threads:
		return fmt.Errorf("%w: argon2 with %d threads, from 1 to %d are", hsm.ErrInput, a.Threads, maxArgon2Threads)
	case a.MemoryKiB < 8*uint32(a.Threads) || a.MemoryKiB > maxArgon2MemoryKiB:
		return fmt.Errorf("%w: argon2 with %d KiB, from %d to %d are", hsm.ErrInput, a.MemoryKiB, 8*uint32(a.Threads), maxArgon2MemoryKiB)
	}
	return nil
}

// Limits of a PIN in bytes. The lower one is that of common PKCS#11 tokens; the strength of a PIN is the operator's choice.
const (
	minPIN = 4
	maxPIN = 1024
)

func validatePIN(pin []byte) error {
	if len(pin) < minPIN || len(pin) > maxPIN {
		return fmt.Errorf("%w: a PIN of %d bytes, from %d to %d are", hsm.ErrInput, len(pin), minPIN, maxPIN)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Argon2 == (Argon2{}) {
		o.Argon2 = DefaultArgon2()
	}
	if o.Random == nil {
		o.Random = rand.Reader
	} else {
		o.Random = &serialReader{r: o.Random}
	}
	return o
}

// serialReader makes a reader safe for concurrent use.
type serialReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (s *serialReader) Read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(b)
}
