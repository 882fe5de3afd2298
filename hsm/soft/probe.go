package soft

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/selftest"
)

// probe runs one key of each algorithm through its whole life (RSA from its unwrapping on), as every backend must: a build of Go may
// lack one (a FIPS mode that refuses it), and a self-test at start catches a miscompiled or altered binary before it touches a real
// key. What it tries is the program and the processor, which are the same for every token: once per process is enough.
var probe = sync.OnceValue(func() []hsm.Capability {
	r := new(region)
	defer r.close()
	rows := make([]hsm.Capability, 0, len(hsm.Algorithms()))
	for _, alg := range hsm.Algorithms() {
		rows = append(rows, probeAlgorithm(alg, r))
	}
	return rows
})

func probeAlgorithm(alg hsm.Algorithm, r *region) (row hsm.Capability) {
	row.Algorithm = alg
	missing := func(step string, err error) hsm.Capability {
		row.Missing = fmt.Sprintf("%s of %s: %v", step, alg, err)
		return row
	}
	material, spki, err := probeMaterial(alg)
	if err != nil {
		return missing("generation", err)
	}
	defer clear(material)
	row.Can |= hsm.CanGenerate
	s, err := probeSession(r)
	if err != nil {
		return missing("key wrap", err)
	}
	defer s.Shut()
	c, err := reopen(s, hsm.Binding{ClusterID: s.info.ClusterID, KeyID: "probe", Version: 1, Algorithm: alg, Generation: 1, PublicKey: spki}, material)
	if err != nil {
		return missing("key wrap", err)
	}
	defer c.Release()
	row.Can |= hsm.CanWrap | hsm.CanUnwrap | hsm.CanImport // one parser and one key wrap, wherever a key was made
	if !isTriedElsewhere(alg) {
		if err := exercise(alg, c.material, spki); err != nil {
			return missing("use", err)
		}
	}
	row.Can = alg.Abilities()
	return row
}

// isTriedElsewhere: the padding is tried with the smallest decryption key and the private operation of each size by a signature, so
// decrypting with the larger ones would find nothing more, for as much time as most of the other algorithms take together.
func isTriedElsewhere(alg hsm.Algorithm) bool {
	return alg == hsm.RSA3072OAEP || alg == hsm.RSA4096OAEP
}

// probeMaterial is a new key, or for RSA a published one: searching for primes at every start would take seconds and tell nothing that
// tryPair does not check for each key that is made.
func probeMaterial(alg hsm.Algorithm) (material, spki []byte, err error) {
	material = selftest.RSA(rsaBits(alg))
	if material == nil {
		return drawMaterial(alg, rand.Reader)
	}
	key, err := parseRSA(material)
	if err != nil {
		return nil, nil, err
	}
	spki, err = hsm.MarshalPublicKey(alg, x509.MarshalPKCS1PublicKey(&key.PublicKey))
	return bytes.Clone(material), spki, err
}

// probeSession has a master that nobody else has.
func probeSession(r *region) (*session, error) {
	secret := make([]byte, keySize)
	defer clear(secret)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	m, err := hsm.DeriveMaster(secret, "probe", 1)
	if err != nil {
		return nil, err
	}
	defer m.Wipe()
	return openSession(m, r)
}

func reopen(s *session, b hsm.Binding, material []byte) (*workingCopy, error) {
	k, err := s.wrapKey(b, material)
	if err != nil {
		return nil, err
	}
	back, err := s.unwrapKey(k)
	if err != nil {
		return nil, err
	}
	defer clear(back)
	usable, err := openMaterial(b.Algorithm, back, b.PublicKey, s.region)
	if err != nil {
		return nil, err
	}
	return s.adopt(b.Algorithm, usable), nil
}

var errInconsistent = errors.New("hsm/soft: the two halves of the key do not fit")

// exercise uses a key and checks the result.
func exercise(alg hsm.Algorithm, key wiper, spki []byte) error {
	message := []byte("conclave/v1/probe")
	switch m := key.(type) {
	case signer:
		in := hsm.SignInput{Message: message}
		signature, err := m.sign(in)
		if err != nil {
			return err
		}
		return hsm.Verify(alg, in, spki, signature)
	case *macKey:
		mac, err := m.mac(message)
		if err != nil {
			return err
		}
		return m.verify(message, mac)
	case *cipherKey:
		sealed, err := m.encrypt(message, nil)
		return opens(m, sealed, message, err)
	case *oaepKey:
		sealed, err := hsm.EncryptOAEP(alg, spki, message)
		return opens(m, sealed, message, err)
	case *agreement:
		return exerciseAgreement(m, alg, spki)
	case *kemKey:
		want, ciphertext, err := hsm.Encapsulate(alg, spki)
		if err != nil {
			return err
		}
		got, err := m.decapsulate(ciphertext)
		return same(got, want, err)
	}
	return hsm.ErrUnsupported
}

func opens(m opener, sealed, want []byte, err error) error {
	if err != nil {
		return err
	}
	got, err := m.decrypt(sealed, nil)
	return same(got, want, err)
}

// exerciseAgreement agrees with a fresh peer, who computes the same secret from the public half.
func exerciseAgreement(m *agreement, alg hsm.Algorithm, spki []byte) error {
	peer, err := m.curve.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	peerSPKI, err := hsm.MarshalPublicKey(alg, peer.PublicKey().Bytes())
	if err != nil {
		return err
	}
	got, err := m.agree(peerSPKI)
	if err != nil {
		return err
	}
	defer clear(got)
	want, err := peerSecret(m.curve, peer, alg, spki)
	defer clear(want)
	return same(got, want, err)
}

func peerSecret(curve ecdh.Curve, peer *ecdh.PrivateKey, alg hsm.Algorithm, spki []byte) ([]byte, error) {
	point, err := hsm.ParsePublicKey(alg, spki)
	if err != nil {
		return nil, err
	}
	public, err := curve.NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return peer.ECDH(public)
}

func same(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		return errInconsistent
	}
	return err
}
