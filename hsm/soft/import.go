package soft

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"sync/atomic"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

var _ hsm.Importer = (*Token)(nil)

// importBits is the strength of an import key: 128 bits (SP 800-57 Part 1 §5.6.1), and it lives for minutes. A stronger material is
// carried by it all the same; whoever needs more has the HSM generate.
const importBits = 3072

// drawImportPair searches for primes, which takes a tenth of a second to some seconds; tests that are about something else take published ones.
var drawImportPair = func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, importBits) }

// importKey is a copy of the master session, so that sealing destroys it.
type importKey struct {
	hsm.Redacted
	*drain.Copy
	session *session
	form    hsm.Form
	pair    importPair
	public  []byte
	used    atomic.Bool
}

// importPair is the private half of an import key.
type importPair interface {
	unwrap(wrapped []byte) ([]byte, error)
	wipe()
}

type rsaImportPair struct{ *rsa.PrivateKey }

func (p rsaImportPair) unwrap(wrapped []byte) ([]byte, error) {
	return keywrap.UnwrapRSA(p.PrivateKey, wrapped)
}
func (p rsaImportPair) wipe() { wipeRSA(p.PrivateKey) }

// ecdhImportPair: crypto/ecdh owns its memory, so wiping drops the key for the collector.
type ecdhImportPair struct{ private *ecdh.PrivateKey }

func (p *ecdhImportPair) unwrap(wrapped []byte) ([]byte, error) {
	return keywrap.UnwrapECDH(p.private, wrapped)
}
func (p *ecdhImportPair) wipe() { p.private = nil }

// NewImportKey implements hsm.Importer.
func (t *Token) NewImportKey(ctx context.Context, form hsm.Form) (hsm.ImportKey, error) {
	s, err := t.turns.Enter(ctx, "make an import key")
	if err != nil {
		return nil, err
	}
	defer s.End()
	k := &importKey{session: s, form: form}
	if k.pair, k.public, err = drawImportKey(form); err != nil {
		return nil, err
	}
	k.Copy = s.Adopt(k.pair.wipe)
	return k, nil
}

// drawImportKey makes a pair with its DER SubjectPublicKeyInfo.
func drawImportKey(form hsm.Form) (importPair, []byte, error) {
	var pair importPair
	var public any
	switch form {
	case hsm.FormRSA:
		private, err := erased(drawImportPair)
		if err != nil {
			return nil, nil, fmt.Errorf("drawing an import key: %w", err)
		}
		pair, public = rsaImportPair{private}, &private.PublicKey
	case hsm.FormECDH:
		private, err := erased(func() (*ecdh.PrivateKey, error) { return ecdh.P256().GenerateKey(rand.Reader) })
		if err != nil {
			return nil, nil, fmt.Errorf("drawing an import key: %w", err)
		}
		pair, public = &ecdhImportPair{private}, private.PublicKey()
	default:
		return nil, nil, fmt.Errorf("%w: an import key for the form %.64q", hsm.ErrInput, form)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		pair.wipe()
		return nil, nil, fmt.Errorf("encoding an import key: %w", err)
	}
	return pair, spki, nil
}

// PublicKey implements hsm.ImportKey.
func (k *importKey) PublicKey() []byte { return append([]byte(nil), k.public...) }

// Destroy implements hsm.ImportKey.
func (k *importKey) Destroy() { k.Release() }

// Import implements hsm.ImportKey.
func (k *importKey) Import(ctx context.Context, b hsm.Binding, wrapped []byte) (hsm.WrappedKey, error) {
	if err := ctx.Err(); err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("import: %w", err)
	}
	if err := b.ValidateSubject(); err != nil {
		return hsm.WrappedKey{}, err
	}
	if b.ClusterID != k.session.info.ClusterID {
		return hsm.WrappedKey{}, fmt.Errorf("%w: a key of cluster %q under the master of %q", hsm.ErrInput, b.ClusterID, k.session.info.ClusterID)
	}
	if len(wrapped) > hsm.MaxImport {
		return hsm.WrappedKey{}, fmt.Errorf("%w: %d bytes of wrapped material, at most %d are", hsm.ErrInput, len(wrapped), hsm.MaxImport)
	}
	if err := k.Begin(); err != nil {
		return hsm.WrappedKey{}, err
	}
	defer k.End()
	if k.used.Swap(true) {
		return hsm.WrappedKey{}, fmt.Errorf("%w: the import key was used", hsm.ErrClosed)
	}
	defer k.Release()
	return erased(func() (hsm.WrappedKey, error) { return k.take(b, wrapped) })
}

func (k *importKey) take(b hsm.Binding, wrapped []byte) (hsm.WrappedKey, error) {
	outside, err := k.pair.unwrap(wrapped)
	if err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("%w: the material does not unwrap: it is %s to another key than this import key, or damaged", hsm.ErrInput, k.form)
	}
	defer clear(outside)
	material, spki, err := adoptMaterial(b.Algorithm, outside)
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	defer clear(material)
	b.Generation, b.PublicKey = k.session.info.Generation, spki
	return k.session.wrapKey(b, material)
}

// adoptMaterial makes of what came from elsewhere what newMaterial would have made: in this package's own encoding, which every backend
// unwraps, with the public key derived from the private one, and tried.
func adoptMaterial(alg hsm.Algorithm, outside []byte) (material, spki []byte, err error) {
	if n := secretSize(alg); n != 0 {
		if len(outside) != n {
			return nil, nil, fmt.Errorf("%w: %d bytes, and the secret of %s has %d", hsm.ErrInput, len(outside), alg, n)
		}
		if isZero(outside) {
			return nil, nil, fmt.Errorf("%w: the secret is all zero", hsm.ErrInput)
		}
		return append([]byte(nil), outside...), nil, nil
	}
	material, public, err := adoptPair(alg, outside)
	if err != nil {
		return nil, nil, err
	}
	if spki, err = hsm.MarshalPublicKey(alg, public); err == nil {
		err = tryPair(alg, material, spki)
	}
	if err != nil {
		clear(material)
		return nil, nil, notThis(alg)
	}
	return material, spki, nil
}

// adoptPair encodes a private key anew, and gives its public key in the form of hsm.MarshalPublicKey.
func adoptPair(alg hsm.Algorithm, pkcs8 []byte) (material, public []byte, err error) {
	if bits := rsaBits(alg); bits != 0 {
		return adoptRSA(alg, bits, pkcs8)
	}
	seed, public, err := privateSeed(alg, pkcs8)
	if err != nil {
		return nil, nil, notThis(alg)
	}
	if material, err = marshalPrivate(alg, seed, public); err != nil {
		return nil, nil, fmt.Errorf("encoding an imported %s key: %w", alg, err)
	}
	return material, public, nil
}

func adoptRSA(alg hsm.Algorithm, bits int, pkcs8 []byte) (material, public []byte, err error) {
	key, err := parseRSA(pkcs8)
	if err != nil {
		return nil, nil, notThis(alg)
	}
	defer wipeRSA(key)
	if n := key.N.BitLen(); n != bits {
		return nil, nil, fmt.Errorf("%w: an RSA key of %d bits, and %s has %d", hsm.ErrInput, n, alg, bits)
	}
	if material, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, fmt.Errorf("encoding an imported %s key: %w", alg, err)
	}
	return material, x509.MarshalPKCS1PublicKey(&key.PublicKey), nil
}

// notThis says what is expected instead of what was wrong: who imports knows what he sent.
func notThis(alg hsm.Algorithm) error {
	form := "PKCS#8 DER of a private key"
	switch alg {
	case hsm.MLDSA44, hsm.MLDSA65, hsm.MLDSA87, hsm.MLKEM768:
		form += " in the seed form (RFC 9881, RFC 9935)"
	}
	if rsaBits(alg) != 0 {
		form += " with two primes of equal length and the exponent 65537"
	}
	return fmt.Errorf("%w: the material is no valid key of %s: that is %s, whose public half, if it has one inside, is its own", hsm.ErrInput, alg, form)
}
