package ceremony

import (
	"bytes"
	"fmt"
	"io"

	"filippo.io/age"
)

// maxSealedShareBytes bounds what a custodian's program accepts as its share: an age file with one X25519 stanza around the
// framed share takes about 500 bytes.
const maxSealedShareBytes = 4 << 10

// shareLabel is the text in front of a share at rest. age authenticates its content but has no associated data, so the context
// lies inside: a share of one cluster, ceremony or custodian cannot be passed off as another's.
func shareLabel(info Info) frame {
	return newFrame("conclave/v1/ceremony/share-at-rest").text(info.ClusterID).text(string(info.Ceremony)).text(string(info.Custodian))
}

// SealShareToCustodian encrypts a share to a custodian's age recipient (age1…). Of info it binds ClusterID, Ceremony and
// Custodian, which must not be empty; Node and Purpose do not matter. Any program that speaks age opens the result.
func SealShareToCustodian(recipient string, share Share, info Info) ([]byte, error) {
	if info.ClusterID == "" || info.Ceremony == "" || info.Custodian == "" || share.value == nil {
		return nil, fmt.Errorf("%w: the context is incomplete", ErrSeal)
	}
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("%w: the recipient of custodian %s: %w", ErrSeal, info.Custodian, err)
	}
	plaintext := append(shareLabel(info), share.Encode()...)
	defer clear(plaintext)
	sealed, err := encrypt(plaintext, to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSeal, err)
	}
	return sealed, nil
}

func encrypt(plaintext []byte, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plaintext); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// openShare is the reverse, with the custodian's private key. ErrOpen for every failure.
func openShare(key age.Identity, sealed []byte, info Info) (Share, error) {
	if len(sealed) > maxSealedShareBytes {
		return Share{}, ErrOpen
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), key)
	if err != nil {
		return Share{}, ErrOpen
	}
	plaintext, err := io.ReadAll(io.LimitReader(r, maxSealedShareBytes))
	defer clear(plaintext)
	if err != nil {
		return Share{}, ErrOpen
	}
	encoded, ok := bytes.CutPrefix(plaintext, shareLabel(info))
	if !ok {
		return Share{}, ErrOpen
	}
	share, err := DecodeShare(encoded)
	if err != nil {
		return Share{}, ErrOpen
	}
	return share, nil
}
