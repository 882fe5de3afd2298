package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxNote bounds the text of a signed checkpoint: the three lines and some signatures.
const maxNote = 16 << 10

// originPath is behind the cluster's id in a checkpoint's first line: a cluster may have other logs one day.
const originPath = "/lifecycle-log"

var (
	// ErrCheckpoint: the text is no signed checkpoint of this kind of log.
	ErrCheckpoint = errors.New("not a signed checkpoint of a lifecycle log")
	// ErrSignature: no key that is trusted signed it, or a signature is wrong.
	ErrSignature = errors.New("the checkpoint carries no good signature of a key that is trusted")
)

// Checkpoint is the head of a cluster's log: its size in leaves and the root of the tree over them.
type Checkpoint struct {
	Cluster string
	Size    uint64
	Root    tlog.Hash
}

// text is the note's body, as C2SP tlog-checkpoint has it.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s%s\n%d\n%s\n", c.Cluster, originPath, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// parseText accepts exactly what text makes: one form for each checkpoint.
func parseText(s string) (Checkpoint, error) {
	lines := strings.Split(s, "\n")
	if len(lines) != 4 {
		return Checkpoint{}, fmt.Errorf("%w: it has not three lines", ErrCheckpoint)
	}
	cluster, ours := strings.CutSuffix(lines[0], originPath)
	size, err := strconv.ParseUint(lines[1], 10, 63)
	root, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	if !ours || cluster == "" || err != nil || err2 != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("%w: its lines are not CLUSTER%s, a size and a root", ErrCheckpoint, originPath)
	}
	c := Checkpoint{Cluster: cluster, Size: size, Root: tlog.Hash(root)}
	if c.text() != s {
		return Checkpoint{}, fmt.Errorf("%w: its text is not in the one form that there is", ErrCheckpoint)
	}
	return c, nil
}

// Sign returns the signed note. The signers sign with their devices, so that may take time and fail.
func (c Checkpoint) Sign(signers ...note.Signer) (string, error) {
	text, err := note.Sign(&note.Note{Text: c.text()}, signers...)
	if err != nil {
		return "", fmt.Errorf("signing a checkpoint: %w", err)
	}
	return string(text), nil
}

// Open verifies a signed note and returns its checkpoint and the names of the keys that signed it, of those in keys. At least one
// must have; a wrong signature of a known key is an error whatever else there is.
func Open(signed string, keys Keys) (Checkpoint, []string, error) {
	if len(signed) > maxNote {
		return Checkpoint{}, nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCheckpoint, len(signed), maxNote)
	}
	n, err := note.Open([]byte(signed), keys.verifiers())
	var unknown *note.UnverifiedNoteError
	var wrong *note.InvalidSignatureError
	switch {
	case errors.As(err, &unknown):
		return Checkpoint{}, nil, fmt.Errorf("%w: signed by %s; trusted are %s", ErrSignature, names(unknown.Note.UnverifiedSigs), keys)
	case errors.As(err, &wrong):
		return Checkpoint{}, nil, fmt.Errorf("%w: the signature of %s is wrong", ErrSignature, wrong.Name)
	case err != nil:
		return Checkpoint{}, nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	}
	c, err := parseText(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var signers []string
	for _, s := range n.Sigs {
		// note decodes leniently: the unused bits of the last character would be bytes without meaning.
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return Checkpoint{}, nil, fmt.Errorf("%w: the signature of %s is not in the one form that there is", ErrSignature, s.Name)
		}
		if cluster, _, _ := strings.Cut(s.Name, "/"); cluster != c.Cluster {
			return Checkpoint{}, nil, fmt.Errorf("%w: %s is no node of cluster %s", ErrSignature, s.Name, c.Cluster)
		}
		signers = append(signers, s.Name)
	}
	return c, signers, nil
}

func names(sigs []note.Signature) string {
	var all []string
	for _, s := range sigs {
		all = append(all, s.Name)
	}
	return strings.Join(all, ", ")
}
