package keywrap

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	semiblock = 8 // bytes; the unit of RFC 3394
	// icv is the constant half of the alternative initial value, RFC 5649 §3. The other half is the length of the plaintext.
	icv = 0xA65959A6
	// MaxPlaintext is the largest input in bytes. RFC 5649 permits 2^32; no key comes near, and a bound keeps a forged length
	// from costing memory.
	MaxPlaintext = 1 << 16
	maxBlob      = MaxPlaintext + semiblock
)

var (
	// ErrUnwrap: the blob is not what Wrap made under this key. One error for every cause, so that it is no oracle.
	ErrUnwrap = errors.New("keywrap: the blob does not unwrap")
	// ErrInput: the key is no AES key, or the plaintext is empty or larger than MaxPlaintext.
	ErrInput = errors.New("keywrap: the input is not acceptable")
)

// Wrap encrypts plaintext (1 to MaxPlaintext bytes) under kek (16, 24 or 32 bytes). The blob is 8 to 15 bytes longer and a
// multiple of 8. ErrInput.
func Wrap(kek, plaintext []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("%w: a wrapping key of %d bytes", ErrInput, len(kek))
	}
	if len(plaintext) == 0 || len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("%w: %d bytes to wrap, from 1 to %d are", ErrInput, len(plaintext), MaxPlaintext)
	}
	padded := (len(plaintext) + semiblock - 1) / semiblock * semiblock
	blob := make([]byte, semiblock+padded)
	binary.BigEndian.PutUint32(blob, icv)
	binary.BigEndian.PutUint32(blob[4:], uint32(len(plaintext)))
	copy(blob[semiblock:], plaintext)
	if len(blob) == aes.BlockSize {
		block.Encrypt(blob, blob) // RFC 5649 §4.1: W is not defined for a single semiblock
		return blob, nil
	}
	wrap(block, blob)
	return blob, nil
}

// Unwrap is the inverse. ErrUnwrap, or ErrInput for a kek that is no AES key. The caller wipes what it gets.
func Unwrap(kek, blob []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("%w: a wrapping key of %d bytes", ErrInput, len(kek))
	}
	if len(blob) < aes.BlockSize || len(blob)%semiblock != 0 || len(blob) > maxBlob {
		return nil, ErrUnwrap
	}
	buf := append([]byte(nil), blob...)
	if len(buf) == aes.BlockSize {
		block.Decrypt(buf, buf)
	} else {
		unwrap(block, buf)
	}
	length, ok := check(buf)
	if ok != 1 {
		clear(buf)
		return nil, ErrUnwrap
	}
	return buf[semiblock : semiblock+length : semiblock+length], nil
}

// check verifies the initial value and the padding of a decrypted blob without a branch on its bytes. It returns the length of
// the plaintext, and 1 if all is well.
func check(buf []byte) (length, ok int) {
	iv := binary.BigEndian.Uint64(buf)
	body := buf[semiblock:]
	ok = subtle.ConstantTimeEq(int32(uint32(iv>>32)^icv), 0)
	length = int(uint32(iv))
	pad := uint32(len(body)) - uint32(iv) // in 0..7 if all is well; a longer length wraps around to a huge pad
	ok &= subtle.ConstantTimeEq(int32(pad>>3), 0)
	// Of the last semiblock, the bytes from 8-pad on are padding. With a pad out of range ok is 0 already: it is masked so that
	// the loop is the same for all.
	first := semiblock - int(pad&(semiblock-1))
	for i, b := range body[len(body)-semiblock:] {
		isPadding := subtle.ConstantTimeLessOrEq(first, i)
		ok &= subtle.ConstantTimeSelect(isPadding, subtle.ConstantTimeByteEq(b, 0), 1)
	}
	return length, ok
}

// wrap is W of SP 800-38F §6.1 in place: buf is A ‖ R1 ‖ … ‖ Rn with n ≥ 2.
func wrap(block cipher.Block, buf []byte) {
	var b [aes.BlockSize]byte
	copy(b[:semiblock], buf)
	for t, steps := uint64(1), uint64(6*(len(buf)/semiblock-1)); t <= steps; t++ {
		r := register(buf, t-1)
		copy(b[semiblock:], r)
		block.Encrypt(b[:], b[:])
		binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^t)
		copy(r, b[semiblock:])
	}
	copy(buf, b[:semiblock])
	clear(b[:])
}

// unwrap is the inverse of wrap.
func unwrap(block cipher.Block, buf []byte) {
	var b [aes.BlockSize]byte
	copy(b[:semiblock], buf)
	for t := uint64(6 * (len(buf)/semiblock - 1)); t > 0; t-- {
		r := register(buf, t-1)
		copy(b[semiblock:], r)
		binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^t)
		block.Decrypt(b[:], b[:])
		copy(r, b[semiblock:])
	}
	copy(buf, b[:semiblock])
	clear(b[:])
}

// register is the semiblock Ri that step t (from 0) works on: the steps go round the registers six times.
func register(buf []byte, t uint64) []byte {
	n := uint64(len(buf)/semiblock - 1)
	i := semiblock * (1 + t%n)
	return buf[i : i+semiblock]
}
