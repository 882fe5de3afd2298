//go:build cgo && unix

package pkcs11_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/hsmtest"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

// direct is a loop over github.com/miekg/pkcs11 with the same object of the same module: what a program gets that does nothing else.
type direct struct {
	ctx     *p11.Ctx
	session p11.SessionHandle
	object  p11.ObjectHandle
}

func (d direct) sign(mech *p11.Mechanism, data []byte) error {
	if err := d.ctx.SignInit(d.session, []*p11.Mechanism{mech}, d.object); err != nil {
		return err
	}
	_, err := d.ctx.Sign(d.session, data)
	return err
}

func (d direct) encrypt(plain, aad []byte) error {
	nonce, err := d.ctx.GenerateRandom(d.session, 12)
	if err != nil {
		return err
	}
	params := p11.NewGCMParams(nonce, aad, 128)
	defer params.Free()
	if err := d.ctx.EncryptInit(d.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}, d.object); err != nil {
		return err
	}
	_, err = d.ctx.Encrypt(d.session, plain)
	return err
}

func (d direct) agree(point []byte) error {
	params := p11.NewECDH1DeriveParams(p11.CKD_NULL, nil, point)
	z, err := d.ctx.DeriveKey(d.session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDH1_DERIVE, params)}, d.object, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET),
		p11.NewAttribute(p11.CKA_TOKEN, false), p11.NewAttribute(p11.CKA_SENSITIVE, false), p11.NewAttribute(p11.CKA_EXTRACTABLE, true),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32),
	})
	if err != nil {
		return err
	}
	if _, err := d.ctx.GetAttributeValue(d.session, z, []*p11.Attribute{p11.NewAttribute(p11.CKA_VALUE, nil)}); err != nil {
		return err
	}
	return d.ctx.DestroyObject(d.session, z)
}

// BenchmarkRatio is what the token costs beside a direct loop.
func BenchmarkRatio(b *testing.B) {
	token, _ := create(b)
	importInto(b, token, 1, nil)
	message, aad := []byte("thirty-two bytes of a message..."), make([]byte, 32)
	digest := sha256.Sum256(message)
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	spki, err := hsm.MarshalPublicKey(hsm.ECDHP256, peer.PublicKey().Bytes())
	if err != nil {
		b.Fatal(err)
	}
	sign := func(in hsm.SignInput) func(keyuse.Key) error {
		return func(k keyuse.Key) error { _, err := k.Sign(b.Context(), in); return err }
	}
	pss := p11.NewMechanism(p11.CKM_RSA_PKCS_PSS, p11.NewPSSParams(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, sha256.Size))
	for _, c := range []struct {
		name string
		alg  hsm.Algorithm
		ours func(keyuse.Key) error
		bare func(direct) error
	}{
		{"sign", hsm.ECDSAP256, sign(hsm.SignInput{Message: message}), func(d direct) error { return d.sign(p11.NewMechanism(p11.CKM_ECDSA, nil), digest[:]) }},
		{"sign", hsm.ECDSAP384, sign(hsm.SignInput{Message: message}), func(d direct) error { return d.sign(p11.NewMechanism(p11.CKM_ECDSA, nil), digest[:]) }},
		{"sign_PSS", hsm.RSA2048, sign(hsm.SignInput{Message: message}), func(d direct) error { return d.sign(pss, digest[:]) }},
		{"mac_32_B", hsm.HMACSHA256, func(k keyuse.Key) error { _, err := k.MAC(b.Context(), message); return err },
			func(d direct) error { return d.sign(p11.NewMechanism(p11.CKM_SHA256_HMAC, nil), message) }},
		{"encrypt_32_B", hsm.AES256GCM, func(k keyuse.Key) error { _, err := k.Encrypt(b.Context(), message, aad); return err },
			func(d direct) error { return d.encrypt(message, aad) }},
		{"agree", hsm.ECDHP256, func(k keyuse.Key) error { _, err := k.Agree(b.Context(), spki); return err },
			func(d direct) error { return d.agree(peer.PublicKey().Bytes()) }},
	} {
		b.Run(string(c.alg)+"/"+c.name, func(b *testing.B) {
			key := openKey(b, token, generate(b, token, c.alg))
			ctx, session, object, end, err := token.Direct(key)
			if err != nil {
				b.Fatal(err)
			}
			defer end()
			d := direct{ctx, session, object}
			hsmtest.Compare(b, func() error { return c.ours(key) }, func() error { return c.bare(d) })
		})
	}
}

// BenchmarkOpenBeside is whether opening gets dearer with the number of keys that are open: ours with every check, and the module's alone.
// CONCLAVE_LONG=1: to 100,000, which take a gigabyte.
func BenchmarkOpenBeside(b *testing.B) {
	token, _ := create(b)
	importInto(b, token, 1, nil)
	k := generate(b, token, hsm.AES256GCM)
	unwrap, end, err := token.BareUnwrap(k.Blob)
	if err != nil {
		b.Fatal(err)
	}
	defer end()
	most, _ := hsmtest.Sizes()
	all, n := []*hsmtest.Held{}, 0
	for _, held := range []int{0, 5_000, 20_000, 50_000, 100_000} {
		if held > most {
			break
		}
		if held > n {
			all, n = append(all, hsmtest.Hold(b, token, k, held-n)), held
		}
		b.Run(fmt.Sprint(held), func(b *testing.B) {
			hsmtest.Compare(b, func() error { hsmtest.Rounds(b, token, k, 1); return nil }, unwrap)
		})
	}
	for _, h := range all {
		h.Release(b, func(keyuse.Key) error { return nil })
	}
}
