package soft

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keyuse"
)

var (
	_ hsm.Token   = (*Token)(nil)
	_ keyuse.Port = (*Token)(nil)
)

// Token is the embedded token. Use Create or Open.
type Token struct {
	hsm.Redacted
	random       io.Reader
	region       *region
	file         *keystore
	lock         *os.File
	serial       string
	identity     *identity
	exchange     *exchange
	capabilities []hsm.Capability

	turns *drain.Turns[*session]
}

// Create makes a token with new keys in a new file (0600) at path, whose folder must exist, and opens it. hsm.ErrTokenExists,
// ErrInUse; hsm.ErrInput for a PIN or a cost outside its limits. The caller wipes pin.
func Create(path string, pin []byte, opt Options) (*Token, error) {
	opt = opt.withDefaults()
	if err := errors.Join(validatePIN(pin), opt.Argon2.validate()); err != nil {
		return nil, err
	}
	return locked(path, func(t *Token) error {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%w: %s", hsm.ErrTokenExists, path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("creating the token: %w", err)
		}
		return t.create(path, pin, opt)
	})
}

func (t *Token) create(path string, pin []byte, opt Options) error {
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(opt.Random, salt); err != nil {
		return fmt.Errorf("creating the token: %w", err)
	}
	c, err := newContents(opt.Random)
	if err != nil {
		return fmt.Errorf("creating the token: %w", err)
	}
	defer c.wipe()
	t.unlockFile(path, header{cost: opt.Argon2, salt: salt}, pin)
	if err := t.file.store(c); err != nil {
		return err
	}
	return t.start(c, opt)
}

// Open opens the token at path. hsm.ErrPIN, hsm.ErrTokenDamaged, ErrInUse; fs.ErrNotExist if there is none. The caller wipes pin,
// and does not try another one by itself.
func Open(path string, pin []byte, opt Options) (*Token, error) {
	opt = opt.withDefaults()
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("opening the token: %w", err) // before the lock file is made beside nothing
	}
	return locked(path, func(t *Token) error { return t.open(path, pin, opt) })
}

func (t *Token) open(path string, pin []byte, opt Options) error {
	file, err := readKeystore(path)
	if err != nil {
		return err
	}
	head, sealed, err := parseKeystore(file)
	if err != nil {
		return err
	}
	if validatePIN(pin) != nil {
		return hsm.ErrPIN // no token has such a PIN
	}
	t.unlockFile(path, head, pin)
	c, plain, err := t.file.open(sealed)
	if err != nil {
		return err
	}
	defer clear(plain)
	return t.start(c, opt)
}

// locked runs make on a token that holds the lock of path. If it fails nothing stays open.
func locked(path string, make func(*Token) error) (*Token, error) {
	lock, err := acquireLock(path)
	if err != nil {
		return nil, err
	}
	t := newToken(lock)
	if _, err := erased(func() (*Token, error) { return t, make(t) }); err != nil {
		t.region.close()
		return nil, errors.Join(err, lock.Close())
	}
	return t, nil
}

func newToken(lock *os.File) *Token {
	return &Token{region: new(region), lock: lock, turns: drain.NewTurns(sealedSession())}
}

// unlockFile derives the key of the file from the PIN.
func (t *Token) unlockFile(path string, head header, pin []byte) {
	t.file = &keystore{path: path, header: head, key: t.region.keep(deriveKey(pin, head))}
}

// start takes what a token needs for its whole life from c, and probes.
func (t *Token) start(c *contents, opt Options) error {
	id, ex, err := openNodeKeys(c)
	if err != nil {
		return err
	}
	t.serial, t.random, t.identity, t.exchange = c.serial, opt.Random, id, ex
	t.capabilities = probe()
	return nil
}

// newContents draws the keys of a new token.
func newContents(random io.Reader) (*contents, error) {
	serial := make([]byte, serialDigits/2)
	storage := make([]byte, keySize)
	for _, b := range [][]byte{serial, storage} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, err
		}
	}
	signing, _, err1 := newMaterial(hsm.ECDSAP256, random)
	agreement, _, err2 := newMaterial(hsm.ECDSAP256, random)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &contents{
		serial: hex.EncodeToString(serial), identity: signing, exchange: agreement,
		storage: storageKey{epoch: 1, key: storage},
	}, nil
}

func (c *contents) wipe() {
	clear(c.identity)
	clear(c.exchange)
	clear(c.storage.key)
}

// Info implements hsm.Token. Library tells whether memory is locked.
func (t *Token) Info() hsm.Info {
	return hsm.Info{
		Backend: "soft", Model: "conclave soft token",
		Library: runtime.Version() + "; " + protection() + t.region.protection(), Serial: t.serial,
	}
}

// protection says what this build does beyond locking memory.
func protection() string {
	if Erases {
		return "temporaries erased; "
	}
	return ""
}

// Capabilities implements hsm.Token.
func (t *Token) Capabilities() []hsm.Capability {
	return append([]hsm.Capability(nil), t.capabilities...)
}

// Random implements hsm.Token.
func (t *Token) Random(b []byte) error {
	if _, err := t.turns.Current(); err != nil {
		return err
	}
	if _, err := io.ReadFull(t.random, b); err != nil {
		return fmt.Errorf("reading random bytes: %w", err)
	}
	return nil
}

// Identity implements hsm.Token.
func (t *Token) Identity() crypto.Signer { return t.identity }

// Exchange implements hsm.Token.
func (t *Token) Exchange() ecdh.KeyExchanger { return t.exchange }

// Generate implements hsm.Token.
func (t *Token) Generate(ctx context.Context, b hsm.Binding, exportable bool) (hsm.WrappedKey, error) {
	if err := b.ValidateSubject(); err != nil {
		return hsm.WrappedKey{}, err
	}
	s, err := t.turns.Enter(ctx, "generate")
	if err != nil {
		return hsm.WrappedKey{}, err
	}
	defer s.End()
	if b.ClusterID != s.info.ClusterID {
		return hsm.WrappedKey{}, fmt.Errorf("%w: a key of cluster %q under the master of %q", hsm.ErrInput, b.ClusterID, s.info.ClusterID)
	}
	return erased(func() (hsm.WrappedKey, error) {
		material, spki, err := newMaterial(b.Algorithm, t.random)
		if err != nil {
			return hsm.WrappedKey{}, err
		}
		defer clear(material)
		b.Generation, b.PublicKey, b.Exportable = s.info.Generation, spki, exportable
		return s.wrapKey(b, material)
	})
}

// Open implements keyuse.Port.
func (t *Token) Open(ctx context.Context, k hsm.WrappedKey) (keyuse.Key, error) {
	s, err := t.turns.Enter(ctx, "open")
	if err != nil {
		return nil, err
	}
	defer s.End()
	usable, err := erased(func() (wiper, error) {
		material, err := s.unwrapKey(k)
		if err != nil {
			return nil, err
		}
		defer clear(material)
		return openMaterial(k.Binding.Algorithm, material, k.Binding.PublicKey, t.region)
	})
	if err != nil {
		return nil, err
	}
	return s.adopt(k.Binding.Algorithm, usable), nil
}

// Close implements hsm.Token: it waits for operations under way, without bound, because they are short and wiping keys under
// them is not possible. A second call does nothing.
func (t *Token) Close() error {
	if !t.turns.Close() {
		return nil
	}
	t.identity.close()
	t.exchange.close()
	t.region.close()
	if err := t.lock.Close(); err != nil {
		return fmt.Errorf("closing the token: %w", err)
	}
	return nil
}
