package memlock

import "sync"

// Secret is one secret in memory of its own, until Wipe. It is safe for concurrent use.
type Secret struct {
	mu     sync.Mutex
	memory []byte
	length int
}

// NewSecret copies b, which stays the caller's, who wipes it. An error says what protection the memory lacks; the secret is kept
// all the same.
func NewSecret(b []byte) (*Secret, error) {
	memory, err := Memory(max(len(b), 1))
	copy(memory, b)
	return &Secret{memory: memory, length: len(b)}, err
}

// Use lends the secret to f, which must not keep it. It reports false, without a call, after Wipe.
func (s *Secret) Use(f func([]byte)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		return false
	}
	f(s.memory[:s.length:s.length])
	return true
}

// Wipe overwrites the secret and gives the memory back. A second call does nothing.
func (s *Secret) Wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory == nil {
		return
	}
	clear(s.memory)
	Release(s.memory)
	s.memory = nil
}

// String keeps a secret out of texts.
func (*Secret) String() string { return "[redacted]" }

// GoString is String.
func (*Secret) GoString() string { return "[redacted]" }
