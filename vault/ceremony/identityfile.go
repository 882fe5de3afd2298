package ceremony

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/conclave-vault/conclave/vault/wholefile"
)

// scryptWork is log2 of scrypt's cost for a passphrase: 2^18 takes about a second, age's own choice. maxScryptWork is what
// reading accepts, so that a planted file cannot make the program work for hours.
const (
	scryptWork    = 18
	maxScryptWork = 20
)

// Create writes the identity to a new file, like Save. An existing file is never replaced: it may hold the only copy of a share.
func (i *Identity) Create(path string, passphrase []byte) error {
	text, err := i.seal(passphrase)
	if err != nil {
		return err
	}
	defer clear(text)
	return wholefile.Create(path, text, 0o600)
}

// Save replaces the identity file as a whole (mode 0600), or leaves the old one: a new file is written beside it, made durable and
// renamed. With a passphrase the text is an age file under scrypt, armored; without one it is clear, as age-keygen writes keys.
func (i *Identity) Save(path string, passphrase []byte) error {
	text, err := i.seal(passphrase)
	if err != nil {
		return err
	}
	defer clear(text)
	return wholefile.Replace(path, text)
}

// seal returns the file's content, encrypted if there is a passphrase. The caller wipes it.
func (i *Identity) seal(passphrase []byte) ([]byte, error) {
	text, err := i.encode()
	if err != nil || len(passphrase) == 0 {
		return text, err
	}
	defer clear(text)
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	to.SetWorkFactor(scryptWork)
	sealed, err := encrypt(text, to)
	if err != nil {
		return nil, fmt.Errorf("encrypting the identity of %s: %w", i.name, err)
	}
	return armored(sealed)
}

func armored(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return out.Bytes(), nil
}

// LoadIdentity reads an identity file. passphrase is called only when the file is encrypted; LoadIdentity wipes what it returned.
// A file that group or others can read is refused. A draft that a crash during Save left beside it is removed. ErrPermissions, ErrPassphrase, ErrIdentity.
func LoadIdentity(path string, passphrase func() ([]byte, error)) (*Identity, error) {
	wholefile.DropDraft(path)
	content, err := ReadPrivate(path, 2*maxIdentityBytes) // armor takes a third more than the text
	if err != nil {
		return nil, err
	}
	defer clear(content)
	if bytes.HasPrefix(content, []byte(armor.Header)) {
		if content, err = unlock(content, passphrase); err != nil {
			return nil, fmt.Errorf("opening identity %s: %w", path, err)
		}
		defer clear(content)
	}
	i, err := DecodeIdentity(content)
	if err != nil {
		return nil, fmt.Errorf("reading identity %s: %w", path, err)
	}
	return i, nil
}

// ReadPrivate reads a file that holds a secret: a regular one, that neither group nor others may touch, of at most limit bytes.
// ErrPermissions, ErrIdentity.
func ReadPrivate(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a secret: %w", err)
	}
	defer f.Close()
	// The opened file is asked, not the path, which could change in between.
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading a secret: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrIdentity, path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s", ErrPermissions, path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(b) > limit {
		clear(b)
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrIdentity, path, limit)
	}
	return b, nil
}

func unlock(content []byte, passphrase func() ([]byte, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, fmt.Errorf("%w: the file is encrypted and no passphrase was given", ErrPassphrase)
	}
	phrase, err := passphrase()
	if err != nil {
		return nil, fmt.Errorf("getting the passphrase: %w", err)
	}
	defer clear(phrase)
	key, err := age.NewScryptIdentity(string(phrase))
	if err != nil {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	key.SetMaxWorkFactor(maxScryptWork)
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(content)), key)
	if err != nil {
		return nil, ErrPassphrase
	}
	text, err := io.ReadAll(io.LimitReader(r, maxIdentityBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%w: the file is damaged", ErrIdentity)
	}
	return text, nil
}
