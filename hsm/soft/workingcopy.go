package soft

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

var _ keyuse.Key = (*workingCopy)(nil)

// workingCopy is an unwrapped key of one session.
type workingCopy struct {
	hsm.Redacted
	*drain.Copy
	algorithm hsm.Algorithm
	material  wiper
}

// adopt registers a copy. The caller is counted in.
func (s *session) adopt(alg hsm.Algorithm, material wiper) *workingCopy {
	return &workingCopy{Copy: s.Adopt(material.wipe), algorithm: alg, material: material}
}

// use runs f on the material of c if it is of kind M, counted in.
func use[M wiper](ctx context.Context, c *workingCopy, operation string, f func(M) ([]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	if err := c.Begin(); err != nil {
		return nil, err
	}
	defer c.End()
	m, ok := c.material.(M)
	if !ok {
		return nil, fmt.Errorf("%w: %s with %s", hsm.ErrUnsupported, operation, c.algorithm)
	}
	return erased(func() ([]byte, error) { return f(m) })
}

// Sign implements keyuse.Key.
func (c *workingCopy) Sign(ctx context.Context, in hsm.SignInput) ([]byte, error) {
	return use(ctx, c, "sign", func(m signer) ([]byte, error) {
		if err := in.Validate(c.algorithm); err != nil {
			return nil, err
		}
		return m.sign(in)
	})
}

// Encrypt implements keyuse.Key.
func (c *workingCopy) Encrypt(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	return use(ctx, c, "encrypt", func(m *cipherKey) ([]byte, error) { return m.encrypt(plaintext, aad) })
}

// Decrypt implements keyuse.Key.
func (c *workingCopy) Decrypt(ctx context.Context, ciphertext, aad []byte) ([]byte, error) {
	return use(ctx, c, "decrypt", func(m opener) ([]byte, error) { return m.decrypt(ciphertext, aad) })
}

// MAC implements keyuse.Key.
func (c *workingCopy) MAC(ctx context.Context, message []byte) ([]byte, error) {
	return use(ctx, c, "mac", func(m *macKey) ([]byte, error) { return m.mac(message) })
}

// VerifyMAC implements keyuse.Key.
func (c *workingCopy) VerifyMAC(ctx context.Context, message, mac []byte) error {
	_, err := use(ctx, c, "verify-mac", func(m *macKey) ([]byte, error) { return nil, m.verify(message, mac) })
	return err
}

// Agree implements keyuse.Key.
func (c *workingCopy) Agree(ctx context.Context, peer []byte) ([]byte, error) {
	return use(ctx, c, "agree", func(m agreer) ([]byte, error) { return m.agree(peer) })
}

// Decapsulate implements keyuse.Key.
func (c *workingCopy) Decapsulate(ctx context.Context, ciphertext []byte) ([]byte, error) {
	return use(ctx, c, "decapsulate", func(m decapsulator) ([]byte, error) { return m.decapsulate(ciphertext) })
}
