package hsm

import (
	"crypto/aes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// masterKeySize is AES-256 for the wrap keys and the block-sized choice of RFC 2104 for the bind key.
const masterKeySize = 32

// Master is one generation of the master: three keys derived from the secret that custodians share. It holds clear bytes, so
// it lives only between the recovery of the secret and ImportMaster; whoever made it calls Wipe.
type Master struct {
	Redacted

	ClusterID  string
	Generation uint32
	Wrap       []byte // AES-256: wraps key material
	WrapExport []byte // AES-256: wraps material of classes that permit export
	Bind       []byte // HMAC-SHA-256: binding MAC
}

// DeriveMaster derives the three keys from the shared secret with HKDF-SHA-256 (RFC 5869), one label each:
// info = label ‖ 0x00 ‖ len(cluster id) ‖ cluster id ‖ generation.
func DeriveMaster(secret []byte, clusterID string, generation uint32) (*Master, error) {
	if len(secret) < masterKeySize {
		return nil, fmt.Errorf("%w: a master secret of %d bytes, at least %d are needed", ErrInput, len(secret), masterKeySize)
	}
	if clusterID == "" || generation == 0 {
		return nil, fmt.Errorf("%w: a master needs a cluster id and a generation from 1", ErrInput)
	}
	m := &Master{ClusterID: clusterID, Generation: generation}
	for label, key := range map[string]*[]byte{
		"conclave/v1/wrap": &m.Wrap, "conclave/v1/wrap-export": &m.WrapExport, "conclave/v1/bind": &m.Bind,
	} {
		k, err := deriveKey(secret, nil, masterInfo(label, clusterID, generation), masterKeySize)
		if err != nil {
			m.Wipe()
			return nil, fmt.Errorf("deriving %s: %w", label, err)
		}
		*key = k
	}
	return m, nil
}

// deriveKey is HKDF-SHA-256.
func deriveKey(secret, salt []byte, info string, size int) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, salt, info, size)
}

func masterInfo(label, clusterID string, generation uint32) string {
	b := append([]byte(label), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(clusterID)))
	b = append(b, clusterID...)
	return string(binary.BigEndian.AppendUint32(b, generation))
}

// Wipe overwrites the keys. The Go runtime may have copied them before; this is best effort and says so.
func (m *Master) Wipe() {
	if m == nil {
		return
	}
	clear(m.Wrap)
	clear(m.WrapExport)
	clear(m.Bind)
}

// CheckValues identify the three keys without revealing them, and are recorded when a generation comes into force.
type CheckValues struct{ Wrap, WrapExport, Bind []byte }

// List returns the values in the order wrap, wrap-export, bind.
func (c CheckValues) List() [][]byte { return [][]byte{c.Wrap, c.WrapExport, c.Bind} }

// Check computes the check values: AES-ECB of a zero block, three bytes (PKCS#11 CKA_CHECK_VALUE), for the wrap keys, and
// the first eight bytes of HMAC-SHA-256 over a fixed string for the bind key.
func (m *Master) Check() (CheckValues, error) {
	wrap, err1 := aesCheck(m.Wrap)
	export, err2 := aesCheck(m.WrapExport)
	if err := errors.Join(err1, err2); err != nil {
		return CheckValues{}, fmt.Errorf("computing check values: %w", err)
	}
	h := hmac.New(sha256.New, m.Bind)
	h.Write([]byte("conclave/v1/bind check value"))
	return CheckValues{Wrap: wrap, WrapExport: export, Bind: h.Sum(nil)[:8]}, nil
}

func aesCheck(key []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	var out [aes.BlockSize]byte
	block.Encrypt(out[:], out[:])
	return out[:3], nil
}
