package fips

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// Backend is what every backend is: the token, and the port to use its keys.
type Backend interface {
	hsm.Token
	keyuse.Port
}

// Gated is a backend behind the gate.
type Gated struct {
	hsm.Redacted
	Backend
}

var (
	_ Backend       = (*Gated)(nil)
	_ hsm.Rewrapper = (*Gated)(nil)
	_ hsm.Importer  = (*Gated)(nil)
	_ hsm.Gate      = (*Gated)(nil)

	_ keyuse.Exporter = (*Gated)(nil)
)

// Gate puts b behind the gate. The caller closes the result instead of b.
func Gate(b Backend) *Gated { return &Gated{Backend: b} }

// missing is the reason that operators see in the capabilities, beside the node's name.
const missing = "not FIPS-approved; this node has fips: true"

// Info implements hsm.Token. The library says that the gate is there, so that minutes of ceremonies do too.
func (g *Gated) Info() hsm.Info {
	info := g.Backend.Info()
	info.Library += "; FIPS-approved algorithms only"
	return info
}

// Capabilities implements hsm.Token: what is not approved is missing, whatever the backend says of it.
func (g *Gated) Capabilities() []hsm.Capability {
	rows := g.Backend.Capabilities()
	for i, row := range rows {
		if !row.Algorithm.Approved() {
			rows[i] = hsm.Capability{Algorithm: row.Algorithm, Missing: missing}
		}
	}
	return rows
}

// Permit implements hsm.Gate: public halves do not serve either. SP 800-131A permits verifying old signatures by what was approved once, and
// what is refused here never was.
func (g *Gated) Permit(a hsm.Algorithm) error { return check(a) }

// Generate implements hsm.Token. hsm.ErrUnsupported for what is not approved.
func (g *Gated) Generate(ctx context.Context, b hsm.Binding, exportable bool) (hsm.WrappedKey, error) {
	if err := check(b.Algorithm); err != nil {
		return hsm.WrappedKey{}, err
	}
	return g.Backend.Generate(ctx, b, exportable)
}

// Open implements keyuse.Port. hsm.ErrUnsupported for what is not approved: a key that was made before the gate was closed stays in
// the catalog and serves nobody here. The binding MAC keeps a key from passing under another algorithm's name.
func (g *Gated) Open(ctx context.Context, k hsm.WrappedKey) (keyuse.Key, error) {
	if err := check(k.Binding.Algorithm); err != nil {
		return nil, err
	}
	return g.Backend.Open(ctx, k)
}

// BeginRewrap implements hsm.Rewrapper where the backend does. A key that is not approved is moved like any other: it is used nowhere here,
// and a rekey that left it behind would lose it.
func (g *Gated) BeginRewrap(ctx context.Context, from, to *hsm.Master) (hsm.Rewrapping, error) {
	r, ok := g.Backend.(hsm.Rewrapper)
	if !ok {
		return nil, fmt.Errorf("%w: rewrapping on %s", hsm.ErrUnsupported, g.Backend.Info().Model)
	}
	return r.BeginRewrap(ctx, from, to)
}

// NewImportKey implements hsm.Importer where the backend does. Both forms are approved (SP 800-56B OAEP, SP 800-56A ECDH, SP
// 800-38F KWP); what is imported is checked.
func (g *Gated) NewImportKey(ctx context.Context, form hsm.Form) (hsm.ImportKey, error) {
	i, ok := g.Backend.(hsm.Importer)
	if !ok {
		return nil, hsm.NoImport(g.Backend)
	}
	k, err := i.NewImportKey(ctx, form)
	if err != nil {
		return nil, err
	}
	return gatedImport{k}, nil
}

// Export implements keyuse.Exporter where the backend does. hsm.ErrUnsupported for what is not approved, as Open.
func (g *Gated) Export(ctx context.Context, k hsm.WrappedKey, to hsm.Recipient) ([]byte, error) {
	if err := check(k.Binding.Algorithm); err != nil {
		return nil, err
	}
	e, ok := g.Backend.(keyuse.Exporter)
	if !ok {
		return nil, hsm.NoExport(g.Backend)
	}
	return e.Export(ctx, k, to)
}

type gatedImport struct{ hsm.ImportKey }

// Import implements hsm.ImportKey. hsm.ErrUnsupported for what is not approved.
func (g gatedImport) Import(ctx context.Context, b hsm.Binding, wrapped []byte) (hsm.WrappedKey, error) {
	if err := check(b.Algorithm); err != nil {
		return hsm.WrappedKey{}, err
	}
	return g.ImportKey.Import(ctx, b, wrapped)
}

func check(a hsm.Algorithm) error {
	if a.Approved() {
		return nil
	}
	return fmt.Errorf("%w: %q is %s; use a key of an approved algorithm, or a node without the setting", hsm.ErrUnsupported, a, missing)
}
