package ceremony_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

func stored(t testing.TB, to *ceremony.Identity, s ceremony.StoredShare, share ceremony.Share) ceremony.StoredShare {
	t.Helper()
	sealed, err := ceremony.SealShareToCustodian(to.Public().Recipient, share,
		ceremony.Info{ClusterID: s.ClusterID, Ceremony: s.Ceremony, Custodian: to.Name()})
	if err != nil {
		t.Fatal(err)
	}
	s.Sealed = sealed
	return s
}

// full is an identity with a pin and a share.
func full(t testing.TB) (*ceremony.Identity, ceremony.Share) {
	t.Helper()
	id := newIdentity(t, "alice")
	shares, _ := deal(t, newSecret(t), 1, 1)
	s := stored(t, id, ceremony.StoredShare{ClusterID: "c1", Generation: 1, Ceremony: "id", Roster: [32]byte{7}}, shares[0])
	if err := errors.Join(id.StoreShare(s), id.PinRoster("c1", [32]byte{7})); err != nil {
		t.Fatal(err)
	}
	return id, shares[0]
}

func noPassphrase() ([]byte, error) { return nil, errors.New("asked for a passphrase") }

func TestIdentityFileRoundTrip(t *testing.T) {
	for name, phrase := range map[string]string{"clear": "", "encrypted": "correct horse"} {
		t.Run(name, func(t *testing.T) {
			id, share := full(t)
			path := filepath.Join(t.TempDir(), "alice.id")
			if err := id.Create(path, []byte(phrase)); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("mode %v, %v", info.Mode(), err)
			}
			ask := noPassphrase
			if phrase != "" {
				ask = func() ([]byte, error) { return []byte(phrase), nil }
				needsPassphrase(t, path)
			}
			got, err := ceremony.LoadIdentity(path, ask)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(id.Public(), got.Public()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(id.Pins(), got.Pins()); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(id.Shares(), got.Shares()); diff != "" {
				t.Error(diff)
			}
			again, err := got.Share("c1", 1)
			if err != nil || !bytes.Equal(again.Encode(), share.Encode()) {
				t.Errorf("the share: %v", err)
			}
			if !bytes.Equal(id.Sign([]byte("m")), got.Sign([]byte("m"))) {
				t.Error("the signing key changed")
			}
		})
	}
}

// needsPassphrase: the encrypted file shows nothing and opens with nothing else. It is part of the round trip because each scrypt
// takes seconds under the race detector.
func needsPassphrase(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || bytes.Contains(content, []byte("alice")) || bytes.Contains(content, []byte("AGE-SECRET-KEY")) {
		t.Fatalf("the file shows what it holds: %v", err)
	}
	cancelled := errors.New("cancelled")
	for name, c := range map[string]struct {
		ask  func() ([]byte, error)
		want error
	}{
		"wrong":  {func() ([]byte, error) { return []byte("wrong"), nil }, ceremony.ErrPassphrase},
		"empty":  {func() ([]byte, error) { return nil, nil }, ceremony.ErrPassphrase},
		"none":   {nil, ceremony.ErrPassphrase},
		"failed": {func() ([]byte, error) { return nil, cancelled }, cancelled},
	} {
		if _, err := ceremony.LoadIdentity(path, c.ask); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice.id")
	if err := newIdentity(t, "alice").Create(path, nil); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	if err := newIdentity(t, "alice").Create(path, nil); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second identity: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Fatal("the file changed")
	}
}

// TestADraftOfACrashIsRemoved: it holds the identity in clear. One that another process is writing stays, and its Save is not disturbed.
func TestADraftOfACrashIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path, draft := filepath.Join(dir, "a.custodian"), filepath.Join(dir, ".a.custodian.new")
	id := newIdentity(t, "a")
	if err := id.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(draft, []byte("half an identity"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ceremony.LoadIdentity(path, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(draft); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after loading: %v", err)
	}
	if err := os.WriteFile(draft, []byte(strings.Repeat("a longer one that was left ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := id.Save(path, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("saved over a draft: %v, %v", info, err)
	}
	if _, err := ceremony.LoadIdentity(path, nil); err != nil {
		t.Errorf("saved over a draft: %v", err)
	}

	other, err := os.OpenFile(draft, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := id.Save(path, nil); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("saving beside another process: %v", err)
	}
	if _, err := ceremony.LoadIdentity(path, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(draft); err != nil {
		t.Errorf("another process's draft is gone: %v", err)
	}
}

func TestSaveReplacesAndLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alice.id")
	id := newIdentity(t, "alice")
	if err := id.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(id.PinRoster("c1", [32]byte{1}), id.Save(path, nil)); err != nil {
		t.Fatal(err)
	}
	got, err := ceremony.LoadIdentity(path, noPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	if hash, ok := got.Pinned("c1"); !ok || hash != [32]byte{1} {
		t.Error("the pin was not saved")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if err := id.Save(filepath.Join(dir, "absent", "x"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("saving into no folder: %v", err)
	}
}

func TestLoadRefusesReadableFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alice.id")
	if err := newIdentity(t, "alice").Create(path, nil); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := ceremony.LoadIdentity(path, noPassphrase)
		if !errors.Is(err, ceremony.ErrPermissions) || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("%o: %v", mode, err)
		}
	}
	if _, err := ceremony.LoadIdentity(filepath.Dir(path), noPassphrase); !errors.Is(err, ceremony.ErrIdentity) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := ceremony.LoadIdentity(path+"x", noPassphrase); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func identityText(t testing.TB) []byte {
	t.Helper()
	id, _ := full(t)
	path := filepath.Join(t.TempDir(), "id")
	if err := id.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDecodeIdentityIsStrict(t *testing.T) {
	text := string(identityText(t))
	replace := func(old, new string) string {
		t.Helper()
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in the text", old)
		}
		return strings.Replace(text, old, new, 1)
	}
	for name, bad := range map[string]string{
		"empty":         "",
		"version":       replace(`"conclave_identity": 1`, `"conclave_identity": 2`),
		"unknown field": replace("{\n", "{\n  \"more\": 1,\n"),
		"twice":         replace(`"name": "alice"`, "\"name\": \"alice\",\n  \"name\": \"alice\""),
		"other case":    replace(`"name"`, `"NAME"`),
		"bad name":      replace(`"alice"`, `"Alice/../x"`),
		"age key":       replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-2"),
		"spaces":        replace("{\n", "{ \n"),
		"trailing":      text + "x",
		"null":          replace(`"shares": [`, `"shares": null, "x": [`),
		"hash":          replace(hex.EncodeToString(make([]byte, 31)), strings.Repeat("z", 62)),
		"generation":    replace(`"generation": 1`, `"generation": 0`),
		"oversized":     strings.Repeat(" ", 1<<20+1),
	} {
		id, err := ceremony.DecodeIdentity([]byte(bad))
		if id != nil || !errors.Is(err, ceremony.ErrIdentity) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "AGE-SECRET") {
			t.Errorf("%s: the error shows a key", name)
		}
	}
	if _, err := ceremony.DecodeIdentity([]byte(text)); err != nil {
		t.Errorf("the text itself: %v", err)
	}
}

func FuzzDecodeIdentityNeverPanics(f *testing.F) {
	f.Add(identityText(f))
	f.Add([]byte(`{"conclave_identity":1}`))
	f.Add([]byte(`{"conclave_identity":1,"name":"a","pins":[{}],"shares":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, err := ceremony.DecodeIdentity(text)
		if err != nil {
			if !errors.Is(err, ceremony.ErrIdentity) && !errors.Is(err, ceremony.ErrPin) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		if _, err := ceremony.ParsePublic([]byte(ceremony.EncodePublic(id.Public()))); err != nil {
			t.Fatalf("an identity without a card: %v", err)
		}
	})
}

func TestPublicCard(t *testing.T) {
	c := newIdentity(t, "alice").Public()
	card := ceremony.EncodePublic(c)
	for _, text := range []string{card, card + "\n"} {
		got, err := ceremony.ParsePublic([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Error(diff)
		}
	}
	key := base64.StdEncoding.EncodeToString(c.SigningKey)
	for name, bad := range map[string]string{
		"empty":     "",
		"version":   strings.Replace(card, "custodian-1", "custodian-2", 1),
		"name":      strings.Replace(card, "alice", "al/ce", 1),
		"no name":   strings.Replace(card, "alice", "", 1),
		"recipient": strings.Replace(card, "age1", "age2", 1),
		"upper":     strings.Replace(card, c.Recipient, strings.ToUpper(c.Recipient), 1),
		"short key": strings.Replace(card, key, "AAAA", 1),
		"base64":    strings.Replace(card, key, "!", 1),
		"line":      strings.Replace(card, key, key[:8]+"\n"+key[8:], 1),
		"two lines": card + "\n" + card,
		"spaces":    strings.Replace(card, " ", "  ", 1),
		"more":      card + " x",
		"crlf":      card + "\r\n",
		"oversized": card + strings.Repeat(" ", 512),
	} {
		if _, err := ceremony.ParsePublic([]byte(bad)); !errors.Is(err, ceremony.ErrIdentity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParsePublicRoundTrip(f *testing.F) {
	f.Add([]byte(ceremony.EncodePublic(newIdentity(f, "alice").Public())))
	f.Add([]byte("conclave-custodian-1 a age1 AAAA"))
	f.Fuzz(func(t *testing.T, card []byte) {
		c, err := ceremony.ParsePublic(card)
		if err == nil && ceremony.EncodePublic(c) != strings.TrimSuffix(string(card), "\n") {
			t.Fatal("a card has two texts")
		}
	})
}

func TestNamesOfCustodians(t *testing.T) {
	for _, bad := range []string{"", "-a", ".", "a b", "a/b", "ä", strings.Repeat("a", 65), "a\n"} {
		if _, err := ceremony.NewIdentity(bad); !errors.Is(err, ceremony.ErrIdentity) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"a", "A", "a.b-c_d", "7", strings.Repeat("a", 64)} {
		if err := ceremony.CheckName(fsm.CustodianName(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestPins(t *testing.T) {
	c, ids := genesis(t, "alice")
	id, roster := ids[0], c.Roster
	if err := id.CheckPin("c1", []fsm.Roster{roster}); !errors.Is(err, ceremony.ErrPin) {
		t.Errorf("before any part in it: %v", err)
	}
	shares, _ := deal(t, newSecret(t), 1, 1)
	s := stored(t, id, ceremony.StoredShare{ClusterID: "c1", Generation: 1, Ceremony: c.ID, Roster: fsm.RosterHash(roster)}, shares[0])
	if err := id.StoreShare(s); err != nil {
		t.Fatal(err)
	}
	if err := id.CheckPin("c1", []fsm.Roster{roster}); err != nil {
		t.Errorf("by the stored share: %v", err)
	}
	if err := errors.Join(id.PinRoster("c1", fsm.RosterHash(roster)), id.PinRoster("c1", fsm.RosterHash(roster))); err != nil {
		t.Fatal(err)
	}
	if err := id.CheckPin("c1", []fsm.Roster{roster}); err != nil {
		t.Errorf("by the pin: %v", err)
	}
	foreign := roster
	foreign.Threshold = 9
	for name, err := range map[string]error{
		"other roster":  id.CheckPin("c1", []fsm.Roster{foreign}),
		"other cluster": id.CheckPin("c2", []fsm.Roster{roster}),
		"empty chain":   id.CheckPin("c1", nil),
		"second pin":    id.PinRoster("c1", fsm.RosterHash(foreign)),
	} {
		if !errors.Is(err, ceremony.ErrPin) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := id.PinRoster("", [32]byte{}); !errors.Is(err, ceremony.ErrIdentity) {
		t.Errorf("a pin without a cluster: %v", err)
	}
}

func TestStoreShare(t *testing.T) {
	id := newIdentity(t, "alice")
	shares, _ := deal(t, newSecret(t), 2, 3)
	aborted := stored(t, id, ceremony.StoredShare{ClusterID: "c1", Generation: 1, Ceremony: "first"}, shares[0])
	second := stored(t, id, ceremony.StoredShare{ClusterID: "c1", Generation: 1, Ceremony: "second"}, shares[1])
	if err := errors.Join(id.StoreShare(aborted), id.StoreShare(second), id.StoreShare(second)); err != nil {
		t.Fatal(err)
	}
	if got, err := id.Share("c1", 1); err != nil || got.Number != 2 || len(id.Shares()) != 2 {
		t.Errorf("share %d of %d stored: %v", got.Number, len(id.Shares()), err)
	}
	if err := errors.Join(id.PinRoster("c1", [32]byte{}), id.StoreShare(second)); err != nil {
		t.Fatalf("the same one again: %v", err)
	}
	third := stored(t, id, ceremony.StoredShare{ClusterID: "c1", Generation: 1, Ceremony: "third"}, shares[2])
	if err := id.StoreShare(third); !errors.Is(err, ceremony.ErrShareHeld) {
		t.Errorf("another one over the share in force: %v", err)
	}
	wrong := second
	wrong.ClusterID = "c2"
	if err := id.StoreShare(wrong); !errors.Is(err, ceremony.ErrOpen) {
		t.Errorf("a share of another cluster: %v", err)
	}
	unnumbered := stored(t, id, ceremony.StoredShare{ClusterID: "c3", Ceremony: "x"}, shares[0])
	if err := id.StoreShare(unnumbered); !errors.Is(err, ceremony.ErrIdentity) {
		t.Errorf("generation 0: %v", err)
	}
	for _, absent := range []struct {
		cluster    string
		generation uint32
	}{{"c1", 2}, {"c2", 1}} {
		if _, err := id.Share(absent.cluster, absent.generation); !errors.Is(err, ceremony.ErrNoShare) {
			t.Errorf("%v: %v", absent, err)
		}
	}
}

// Secrets cannot print themselves: not by any verb, encoder or logger, nor from another type's unexported field.
func TestSecretsAreRedacted(t *testing.T) {
	secret := newSecret(t)
	shares, _ := deal(t, secret, 1, 1)
	id := newIdentity(t, "alice")
	share := shares[0]
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("m", "secret", secret, "share", share, "share pointer", &share, "identity", id, "identity value", *id)
	printed := log.String()
	for _, v := range []any{secret, share, &share, id, *id, shares, map[string]any{"a": share, "b": secret}} {
		printed += fmt.Sprintf("%v %+v %#v %s %q %x %X %d\n", v, v, v, v, v, v, v, v)
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		printed += string(b) + "\n"
	}
	type holder struct {
		share ceremony.Share
		id    *ceremony.Identity
	}
	for _, format := range []string{"%v\n", "%+v\n", "%#v\n", "%x\n", "%s\n"} {
		printed += fmt.Sprintf(format, holder{share, id})
	}
	if strings.Count(printed, "[redacted]") < 10 {
		t.Errorf("nothing was redacted:\n%s", printed)
	}
	seed := identitySeed(t, id)
	for name, canary := range map[string][]byte{"secret": secret, "share": share.Encode()[2:], "seed": seed} {
		for _, form := range []string{
			string(canary), hex.EncodeToString(canary), strings.ToUpper(hex.EncodeToString(canary)), base64.StdEncoding.EncodeToString(canary),
			strings.Trim(fmt.Sprint([]byte(canary)), "[]"),
		} {
			if strings.Contains(printed, form) {
				t.Errorf("the %s shows as %q", name, form)
			}
		}
	}
	if strings.Contains(printed, "AGE-SECRET-KEY") {
		t.Error("the age key shows")
	}
}

func identitySeed(t *testing.T, id *ceremony.Identity) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id")
	if err := id.Create(path, nil); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var text struct {
		Seed []byte `json:"ed25519_seed"`
	}
	if err := json.Unmarshal(content, &text); err != nil || len(text.Seed) != 32 {
		t.Fatalf("%d bytes, %v", len(text.Seed), err)
	}
	return text.Seed
}

func TestWipe(t *testing.T) {
	secret := newSecret(t)
	secret.Wipe()
	if !bytes.Equal(secret, make([]byte, ceremony.SecretSize)) {
		t.Error("the secret is still there")
	}
	id := newIdentity(t, "alice")
	message := []byte("m")
	key := id.Public().SigningKey
	id.Wipe()
	if ceremony.VerifySignature(key, message, id.Sign(message)) == nil {
		t.Error("a wiped identity signs")
	}
}
