//go:build cgo && unix

package pkcs11

import (
	"crypto"
	"crypto/ecdh"
	stdecdsa "crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
)

// Labels of the node's own keys, which are objects of the token from its first day.
const (
	labelIdentity = "conclave-identity" // P-256 pair, CKM_ECDSA
	labelExchange = "conclave-exchange" // P-256 pair, CKM_ECDH1_DERIVE
	labelStorage  = "conclave-storage"  // AES-256, CKM_AES_GCM; CKA_ID is the epoch, big endian
)

const firstEpoch = 1

// nodeKeySearches has a template for each object that a node's token must hold, exactly once.
func nodeKeySearches() map[string]template {
	of := func(class uint, label string) template {
		return template{attr(p11.CKA_CLASS, class), attr(p11.CKA_TOKEN, true), attr(p11.CKA_LABEL, label)}
	}
	return map[string]template{
		"identity": of(p11.CKO_PRIVATE_KEY, labelIdentity), "identity, public": of(p11.CKO_PUBLIC_KEY, labelIdentity),
		"exchange": of(p11.CKO_PRIVATE_KEY, labelExchange), "exchange, public": of(p11.CKO_PUBLIC_KEY, labelExchange),
		"storage": of(p11.CKO_SECRET_KEY, labelStorage),
	}
}

// findNodeKeys gives the objects by the names of nodeKeySearches; those that are not there are missing from it.
func (m *module) findNodeKeys(w p11.SessionHandle) (map[string]p11.ObjectHandle, error) {
	found := make(map[string]p11.ObjectHandle)
	for name, t := range nodeKeySearches() {
		objects, err := m.search(w, t)
		if err != nil {
			return nil, fmt.Errorf("looking for the node's keys: %w", err)
		}
		if len(objects) > 1 {
			return nil, fmt.Errorf("%w: %d objects for the node's %s key", hsm.ErrTokenDamaged, len(objects), name)
		}
		if len(objects) == 1 {
			found[name] = objects[0]
		}
	}
	return found, nil
}

// requireNodeKeys: ErrNoKeys if there are none, hsm.ErrTokenDamaged if some are.
func (t *Token) requireNodeKeys(w p11.SessionHandle) (map[string]p11.ObjectHandle, error) {
	found, err := t.module.findNodeKeys(w)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("the token with serial %s: %w", t.info.Serial, ErrNoKeys)
	case len(found) != len(nodeKeySearches()):
		return nil, fmt.Errorf("%w: %d of the %d objects of the node's keys are there; if its creation was interrupted, "+
			"initialise the token anew", hsm.ErrTokenDamaged, len(found), len(nodeKeySearches()))
	}
	return found, nil
}

// makeNodeKeys makes all or, if the module answers, none. hsm.ErrTokenExists.
func (t *Token) makeNodeKeys(w p11.SessionHandle) error {
	found, err := t.module.findNodeKeys(w)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: the token with serial %s holds keys of a node", hsm.ErrTokenExists, t.info.Serial)
	}
	var made []p11.ObjectHandle
	err = t.module.makePair(w, &made, labelIdentity, p11.CKA_SIGN, p11.CKA_VERIFY, p11.CKM_ECDSA)
	if err == nil {
		err = t.module.makePair(w, &made, labelExchange, p11.CKA_DERIVE, p11.CKA_DERIVE, p11.CKM_ECDH1_DERIVE)
	}
	if err == nil {
		err = t.module.makeStorageKey(w, &made, firstEpoch)
	}
	if err == nil {
		return nil
	}
	for _, o := range made {
		if gone := check("C_DestroyObject", t.module.ctx.DestroyObject(w, o)); gone != nil {
			t.log.Error("an object of an interrupted creation stays on the token", "err", gone)
		}
	}
	return err
}

func (m *module) makePair(w p11.SessionHandle, made *[]p11.ObjectHandle, label string, right, publicRight, mech uint) error {
	public := template{
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, false), attr(p11.CKA_LABEL, label), attr(p11.CKA_EC_PARAMS, p256.params),
		attr(publicRight, true),
	}
	private := template{
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_LABEL, label),
		attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false), attr(p11.CKA_COPYABLE, false),
	}.with(privateUsage(right)...).with(mechanisms(mech))
	a, b, err := m.ctx.GenerateKeyPair(w, mechanism(p11.CKM_EC_KEY_PAIR_GEN), public, private)
	if err != nil {
		return fmt.Errorf("making %s: %w", label, check("C_GenerateKeyPair", err))
	}
	*made = append(*made, a, b)
	return nil
}

func (m *module) makeStorageKey(w p11.SessionHandle, made *[]p11.ObjectHandle, epoch uint32) error {
	t := template{
		attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_AES), attr(p11.CKA_VALUE_LEN, keySize),
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_LABEL, labelStorage),
		attr(p11.CKA_ID, binary.BigEndian.AppendUint32(nil, epoch)),
		attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false), attr(p11.CKA_COPYABLE, false),
	}.with(usage(p11.CKA_ENCRYPT, p11.CKA_DECRYPT)...).with(mechanisms(p11.CKM_AES_GCM))
	o, err := m.ctx.GenerateKey(w, mechanism(p11.CKM_AES_KEY_GEN), t)
	if err != nil {
		return fmt.Errorf("making %s: %w", labelStorage, check("C_GenerateKey", err))
	}
	*made = append(*made, o)
	return nil
}

// publicKeys are those of a node's token.
type publicKeys struct {
	identity *stdecdsa.PublicKey
	exchange *ecdh.PublicKey
}

// readNodeKeys reads the public keys, and the protection of the others. hsm.ErrTokenDamaged.
func (t *Token) readNodeKeys(w p11.SessionHandle, found map[string]p11.ObjectHandle) (keys publicKeys, err error) {
	for _, name := range []string{"identity", "exchange", "storage"} {
		if err := t.module.isRestricted(w, found[name]); err != nil {
			return keys, fmt.Errorf("the node's %s key: %w", name, err)
		}
	}
	id, err := readPoint(t.module, w, found["identity, public"], 65)
	if err == nil {
		keys.identity, err = stdecdsa.ParseUncompressedPublicKey(elliptic.P256(), id)
	}
	if err != nil {
		return keys, fmt.Errorf("%w: the node's identity key: %w", hsm.ErrTokenDamaged, err)
	}
	ex, err := readPoint(t.module, w, found["exchange, public"], 65)
	if err == nil {
		keys.exchange, err = ecdh.P256().NewPublicKey(ex)
	}
	if err != nil {
		return keys, fmt.Errorf("%w: the node's exchange key: %w", hsm.ErrTokenDamaged, err)
	}
	return keys, nil
}

// openNodeKeys takes the node's keys for the life of the token.
func (t *Token) openNodeKeys(w p11.SessionHandle, found map[string]p11.ObjectHandle) error {
	keys, err := t.readNodeKeys(w, found)
	if err != nil {
		return err
	}
	l := t.link.Load()
	l.identity, l.exchange = found["identity"], found["exchange"]
	t.identity = &identity{token: t, public: keys.identity}
	t.exchange = &exchange{token: t, public: keys.exchange}
	return nil
}

// identity is the node's signing key behind crypto.Signer.
type identity struct {
	hsm.Redacted
	token  *Token
	public *stdecdsa.PublicKey
}

// Public implements crypto.Signer.
func (i *identity) Public() crypto.PublicKey { return i.public }

// Sign takes SHA-256 digests only: that is what P-256 certificates and TLS 1.3 use, and a device may cut or fill another length.
// The first argument is ignored: the nonce is the device's.
func (i *identity) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("%w: the node's identity signs SHA-256 digests only", hsm.ErrInput)
	}
	err = i.token.always("signing with the node's identity", func(l *link, w p11.SessionHandle) (err error) {
		signature, err = signNode(i.token.module.functions, w, l.identity, digest)
		return err
	})
	return signature, err
}

// signNode signs a SHA-256 digest with a node's P-256 key.
func signNode(f functions, w p11.SessionHandle, key p11.ObjectHandle, digest []byte) ([]byte, error) {
	in := hsm.SignInput{Prehashed: true, Digest: digest}
	return signECDSA(f, w, key, hsm.ECDSAP256, in, nil, p256.size, derSignature)
}

// exchange is the node's key agreement key behind ecdh.KeyExchanger.
type exchange struct {
	hsm.Redacted
	token  *Token
	public *ecdh.PublicKey
}

// PublicKey implements ecdh.KeyExchanger.
func (e *exchange) PublicKey() *ecdh.PublicKey { return e.public }

// Curve implements ecdh.KeyExchanger.
func (e *exchange) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH implements ecdh.KeyExchanger: the x-coordinate, 32 bytes. HPKE hashes it in Go, so it has to be readable; whoever is
// logged in can compute it all the same.
func (e *exchange) ECDH(remote *ecdh.PublicKey) (z []byte, err error) {
	if remote == nil || remote.Curve() != ecdh.P256() {
		return nil, fmt.Errorf("%w: the node's exchange key is on P-256", hsm.ErrInput)
	}
	err = e.token.always("key agreement", func(l *link, w p11.SessionHandle) (err error) {
		z, err = e.token.module.derive(w, l.exchange, remote.Bytes())
		return err
	})
	return z, err
}

// derive makes the shared secret as an object of the session, reads it and destroys it.
func (m *module) derive(w p11.SessionHandle, key p11.ObjectHandle, point []byte) (z []byte, err error) {
	mech := []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDH1_DERIVE, p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, point))}
	object, err := m.ctx.DeriveKey(w, mech, key, template{
		attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET), attr(p11.CKA_VALUE_LEN, keySize),
		attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, false), attr(p11.CKA_EXTRACTABLE, true),
	})
	if err != nil {
		return nil, fmt.Errorf("CKM_ECDH1_DERIVE: %w", check("C_DeriveKey", err))
	}
	defer func() {
		if gone := check("C_DestroyObject", m.ctx.DestroyObject(w, object)); err == nil {
			err = gone
		}
		if err != nil {
			clear(z)
			z = nil
		}
	}()
	z = make([]byte, keySize)
	n, err := m.read(w, object, p11.CKA_VALUE, z)
	if err == nil && n != keySize {
		err = fmt.Errorf("CKM_ECDH1_DERIVE gave %d bytes", n)
	}
	return z, err
}
