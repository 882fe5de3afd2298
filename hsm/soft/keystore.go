package soft

import (
	"bytes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/conclave-vault/conclave/hsm"
)

// The keystore file, version 1. Everything before the sealed part is the header, and is its associated data:
//
//	magic 8 ‖ version 2 ‖ kdf 1 ‖ time 4 ‖ memory KiB 4 ‖ threads 1 ‖ salt 16 ‖ aead 1 ‖ length of sealed 4 ‖
//	sealed: nonce 12 ‖ ciphertext ‖ tag 16 ‖
//	SHA-256 of all before
//
// The checksum is no authentication, the tag is. It tells a damaged file from a wrong PIN, which the tag alone cannot.
const (
	magic           = "CNCLVSFT"
	formatVersion   = 1
	kdfArgon2id     = 1
	aeadAES256GCM   = 1
	saltSize        = 16 // RFC 9106 §3.1
	headerSize      = len(magic) + 2 + 1 + 4 + 4 + 1 + saltSize + 1 + 4
	maxKeystoreSize = headerSize + maxContents + 64 + sha256.Size
)

// header is what must be known of a file before it can be opened.
type header struct {
	cost Argon2
	salt []byte
}

func (h header) encode(sealedSize int) []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, formatVersion)
	b = append(b, kdfArgon2id)
	b = binary.BigEndian.AppendUint32(b, h.cost.Time)
	b = binary.BigEndian.AppendUint32(b, h.cost.MemoryKiB)
	b = append(b, h.cost.Threads)
	b = append(b, h.salt...)
	b = append(b, aeadAES256GCM)
	return binary.BigEndian.AppendUint32(b, uint32(sealedSize))
}

// parseKeystore splits a file into header and sealed part. hsm.ErrTokenDamaged.
func parseKeystore(file []byte) (header, []byte, error) {
	body := len(file) - sha256.Size
	if body < headerSize || len(file) > maxKeystoreSize {
		return header{}, nil, fmt.Errorf("%w: a keystore of %d bytes", hsm.ErrTokenDamaged, len(file))
	}
	if sum := sha256.Sum256(file[:body]); !bytes.Equal(sum[:], file[body:]) {
		return header{}, nil, fmt.Errorf("%w: the checksum of the keystore", hsm.ErrTokenDamaged)
	}
	s := cryptobyte.String(file[:body])
	h, size, err := parseHeader(&s)
	if err != nil {
		return header{}, nil, err
	}
	if uint64(size) != uint64(len(s)) {
		return header{}, nil, fmt.Errorf("%w: %d bytes sealed, the header says %d", hsm.ErrTokenDamaged, len(s), size)
	}
	return h, s, nil
}

func parseHeader(s *cryptobyte.String) (h header, size uint32, err error) {
	var mark []byte
	var version uint16
	if !s.ReadBytes(&mark, len(magic)) || string(mark) != magic || !s.ReadUint16(&version) {
		return h, 0, fmt.Errorf("%w: not a keystore", hsm.ErrTokenDamaged)
	}
	if version != formatVersion {
		return h, 0, fmt.Errorf("%w: keystore format %d, this release reads %d", hsm.ErrTokenDamaged, version, formatVersion)
	}
	var kdf, aead uint8
	ok := s.ReadUint8(&kdf) && kdf == kdfArgon2id &&
		s.ReadUint32(&h.cost.Time) && s.ReadUint32(&h.cost.MemoryKiB) && s.ReadUint8(&h.cost.Threads) &&
		s.ReadBytes(&h.salt, saltSize) && s.ReadUint8(&aead) && aead == aeadAES256GCM && s.ReadUint32(&size)
	if !ok {
		return h, 0, fmt.Errorf("%w: the header of the keystore", hsm.ErrTokenDamaged)
	}
	if err := h.cost.validate(); err != nil {
		return h, 0, fmt.Errorf("%w: %v", hsm.ErrTokenDamaged, err) // %v: one sentinel only
	}
	return h, size, nil
}

// keystore is the opened file: where it is, its header, and the key under which its contents are sealed. The key is derived
// once: a rewrite keeps the salt and takes a new nonce.
type keystore struct {
	path   string
	header header
	key    []byte // a slot of the region
}

// deriveKey is slow by design.
func deriveKey(pin []byte, h header) []byte {
	return argon2.IDKey(pin, h.salt, h.cost.Time, h.cost.MemoryKiB, h.cost.Threads, keySize)
}

func (k *keystore) aead() (cipher.AEAD, error) { return newGCM(k.key) }

// seal makes the bytes of a file.
func (k *keystore) seal(c *contents) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, fmt.Errorf("sealing the keystore: %w", err)
	}
	plain := c.encode()
	defer clear(plain)
	head := k.header.encode(len(plain) + aead.Overhead())
	file := aead.Seal(bytes.Clone(head), nil, plain, head)
	sum := sha256.Sum256(file)
	return append(file, sum[:]...), nil
}

// open decrypts the sealed part. The caller wipes the plaintext, which the contents alias, when it is done with both.
func (k *keystore) open(sealed []byte) (*contents, []byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, nil, fmt.Errorf("opening the keystore: %w", err)
	}
	plain, err := aead.Open(nil, nil, sealed, k.header.encode(len(sealed)))
	if err != nil {
		return nil, nil, hsm.ErrPIN // the checksum was right, so the key is wrong
	}
	c, err := decodeContents(plain)
	if err != nil {
		clear(plain)
		return nil, nil, err
	}
	return c, plain, nil
}

// load reads the file again and hands its contents to use, which must not keep them. It is how a kept master is reached without
// keeping it in memory.
func (k *keystore) load(use func(*contents) error) error {
	file, err := readKeystore(k.path)
	if err != nil {
		return err
	}
	_, sealed, err := parseKeystore(file)
	if err != nil {
		return err
	}
	c, plain, err := k.open(sealed)
	if errors.Is(err, hsm.ErrPIN) {
		return fmt.Errorf("%w: the keystore was replaced while it was open", hsm.ErrTokenDamaged)
	}
	if err != nil {
		return err
	}
	defer clear(plain)
	return use(c)
}

// store replaces the file.
func (k *keystore) store(c *contents) error {
	file, err := k.seal(c)
	if err != nil {
		return err
	}
	return replaceFile(k.path, file)
}

// setKept writes the file anew with another kept master, or with none.
func (k *keystore) setKept(kept *keptMaster) error {
	return k.load(func(c *contents) error {
		if c.kept == nil && kept == nil {
			return nil
		}
		c.kept = kept
		return k.store(c)
	})
}

func readKeystore(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the keystore: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(maxKeystoreSize)+1))
	if err != nil {
		return nil, fmt.Errorf("reading the keystore: %w", err)
	}
	return b, nil
}
