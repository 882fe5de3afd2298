//go:build cgo && unix

package pkcs11_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keyuse"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
	"github.com/conclave-vault/conclave/hsm/soft"
)

func testMaster(t testing.TB, generation uint32) *hsm.Master {
	t.Helper()
	m, err := hsm.DeriveMaster(bytes.Repeat([]byte{0x5a, byte(generation)}, 24), "c1", generation)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func importInto(t testing.TB, token hsm.Token, generation uint32, persist *hsm.Persistence) {
	t.Helper()
	if err := token.ImportMaster(t.Context(), testMaster(t, generation), persist); err != nil {
		t.Fatal(err)
	}
}

func keyOf(alg hsm.Algorithm) hsm.Binding {
	return hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: alg}
}

func generate(t testing.TB, token hsm.Token, alg hsm.Algorithm) hsm.WrappedKey {
	t.Helper()
	k, err := token.Generate(t.Context(), keyOf(alg), false)
	if err != nil {
		t.Fatalf("generating %s: %v", alg, err)
	}
	return k
}

func openKey(t testing.TB, port keyuse.Port, k hsm.WrappedKey) keyuse.Key {
	t.Helper()
	key, err := port.Open(t.Context(), k)
	if err != nil {
		t.Fatalf("opening %s: %v", k.Binding.Algorithm, err)
	}
	t.Cleanup(key.Release)
	return key
}

func is(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// nodeObjects is all that a token may hold that keeps no master.
var nodeObjects = []string{
	"token conclave-exchange", "token conclave-exchange", "token conclave-identity", "token conclave-identity", "token conclave-storage",
}

// masterObjects come to them for an open master that is not kept.
var masterObjects = []string{"session conclave-bind", "session conclave-wrap", "session conclave-wrap-export"}

// keptObjects come to them for one kept master.
var keptObjects = []string{"token conclave-bind", "token conclave-kept-master", "token conclave-wrap", "token conclave-wrap-export"}

func wantObjects(t *testing.T, token *pkcs11.Token, when string, want ...[]string) {
	t.Helper()
	got, err := token.Objects()
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(want...)
	slices.Sort(all)
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("objects %s (-want +got):\n%s", when, diff)
	}
}

// TestNothingIsLeftOver: the test at the start leaves nothing, nor do a master session, keys, agreements and refusals.
func TestNothingIsLeftOver(t *testing.T) {
	token, _ := create(t)
	wantObjects(t, token, "after the start", nodeObjects)
	importInto(t, token, 1, nil)
	for _, row := range token.Capabilities() {
		if !row.Usable() {
			continue
		}
		k := generate(t, token, row.Algorithm)
		key, err := token.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		key.Release()
		if k.Binding.PublicKey != nil {
			k.Binding.PublicKey = generate(t, token, row.Algorithm).Binding.PublicKey
			k.MAC = hsm.BindingMAC(testMaster(t, 1).Bind, k.Binding, k.Blob)
			_, err := token.Open(t.Context(), k)
			is(t, "another public key", err, hsm.ErrWrappedKey)
		}
	}
	if _, err := token.Exchange().ECDH(token.Exchange().PublicKey()); err != nil {
		t.Error(err)
	}
	wantObjects(t, token, "with an open master", nodeObjects, masterObjects)
	if err := token.Seal(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	wantObjects(t, token, "after Seal", nodeObjects)
}

// TestMasterAttributes: the three masters can do what they are for, and nothing else. CKA_DERIVE would be an oracle for blobs.
func TestMasterAttributes(t *testing.T) {
	wrapping := map[string]bool{"CKA_SENSITIVE": true, "CKA_PRIVATE": true, "CKA_WRAP": true, "CKA_UNWRAP": true}
	want := map[string]map[string]bool{
		"conclave-wrap": wrapping, "conclave-wrap-export": wrapping,
		"conclave-bind": {"CKA_SENSITIVE": true, "CKA_PRIVATE": true, "CKA_SIGN": true, "CKA_VERIFY": true},
	}
	token, _ := create(t)
	for _, persist := range []*hsm.Persistence{nil, persistence(1)} {
		importInto(t, token, 1, persist)
		got, err := token.MasterFlags()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("kept %v: %v (-want +got):\n%s", persist != nil, err, diff)
		}
	}
}

// lacking is what Debian's SoftHSM cannot do, in our words.
var lacking = map[hsm.Algorithm]string{
	hsm.Ed25519:     "CKM_AES_KEY_WRAP_PAD of an Ed25519 key: C_WrapKey: CKR_KEY_NOT_WRAPPABLE (0x69)",
	hsm.RSA2048OAEP: noOAEP, hsm.RSA3072OAEP: noOAEP, hsm.RSA4096OAEP: noOAEP,
	hsm.ECDHX25519: noMechanism, hsm.MLDSA44: noMechanism, hsm.MLDSA65: noMechanism, hsm.MLDSA87: noMechanism, hsm.MLKEM768: noMechanism,
}

const (
	noOAEP      = "CKM_RSA_PKCS_OAEP with SHA-256: C_DecryptInit: CKR_ARGUMENTS_BAD (0x7)"
	noMechanism = "this release has no PKCS#11 mechanism for it"
)

// TestCapabilities: SoftHSM 2.6.1 makes Ed25519 keys but cannot wrap them, and knows OAEP with SHA-1 only; both are said by mechanism and
// code. For some algorithms this release has no mechanism. All others work.
func TestCapabilities(t *testing.T) {
	token, _ := create(t)
	importInto(t, token, 1, nil)
	for _, row := range token.Capabilities() {
		want := lacking[row.Algorithm]
		if want == "" {
			if !row.Usable() || row.Lacks() != 0 {
				t.Errorf("%s: %s: %s", row.Algorithm, row.Lacks(), row.Missing)
			}
			continue
		}
		if made := row.Algorithm == hsm.Ed25519; made && row.Can != hsm.CanGenerate || !made && row.Can.Has(hsm.CanDecrypt) {
			t.Errorf("%s: it can %s", row.Algorithm, row.Can)
		}
		if row.Usable() || row.Missing != want {
			t.Errorf("%+v, want %q", row, want)
		}
		_, err := token.Generate(t.Context(), keyOf(row.Algorithm), false)
		if !errors.Is(err, hsm.ErrUnsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("Generate: %v", err)
		}
	}
	info := token.Info()
	if info.HardwareSafe || !strings.Contains(info.Model, "SoftHSM") || !strings.Contains(info.Library, "libsofthsm2.so") {
		t.Errorf("%+v", info)
	}
}

// TestMixedCluster: what one backend wraps the other opens, and each verifies what the other made.
func TestMixedCluster(t *testing.T) {
	device, _ := create(t)
	embedded, err := soft.Create(filepath.Join(t.TempDir(), "token"), pin, cheapPIN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := embedded.Close(); err != nil {
			t.Error(err)
		}
	})
	importInto(t, device, 1, nil)
	importInto(t, embedded, 1, nil)
	a, err1 := device.Master()
	b, err2 := embedded.Master()
	if diff := cmp.Diff(a, b); diff != "" || err1 != nil || err2 != nil {
		t.Errorf("the masters differ: %v, %v\n%s", err1, err2, diff)
	}
	for _, row := range device.Capabilities() {
		if !row.Usable() {
			continue
		}
		for _, exportable := range []bool{false, true} {
			for _, maker := range []hsm.Token{device, embedded} {
				k, err := maker.Generate(t.Context(), keyOf(row.Algorithm), exportable)
				if err != nil {
					t.Fatal(err)
				}
				exchange(t, k, openKey(t, device, k), openKey(t, embedded, k))
				exchange(t, k, openKey(t, embedded, k), openKey(t, device, k))
			}
		}
	}
}

// exchange has one copy of a key make what the other checks.
func exchange(t *testing.T, k hsm.WrappedKey, maker, checker keyuse.Key) {
	t.Helper()
	alg, message := k.Binding.Algorithm, []byte("from one backend to the other")
	var err error
	switch alg.Family() {
	case hsm.FamilySign:
		for _, scheme := range alg.Schemes() {
			in := hsm.SignInput{Scheme: scheme, Message: message}
			signature, signErr := maker.Sign(t.Context(), in)
			err = errors.Join(err, signErr, hsm.Verify(alg, in, k.Binding.PublicKey, signature))
		}
	case hsm.FamilyMAC:
		var mac []byte
		if mac, err = maker.MAC(t.Context(), message); err == nil {
			err = checker.VerifyMAC(t.Context(), message, mac)
		}
	case hsm.FamilyCipher:
		var sealed, plain []byte
		if sealed, err = maker.Encrypt(t.Context(), message, []byte("aad")); err == nil {
			plain, err = checker.Decrypt(t.Context(), sealed, []byte("aad"))
		}
		if err == nil && !bytes.Equal(plain, message) {
			t.Errorf("%s: %q", alg, plain)
		}
	case hsm.FamilyAgree: // on the same secret with a third party, who computes it by the standard library
		peer := must(ecdh.P256().GenerateKey(rand.Reader))
		own := must(ecdh.P256().NewPublicKey(must(hsm.ParsePublicKey(alg, k.Binding.PublicKey))))
		spki := must(hsm.MarshalPublicKey(alg, peer.PublicKey().Bytes()))
		made, err1 := maker.Agree(t.Context(), spki)
		checked, err2 := checker.Agree(t.Context(), spki)
		err = errors.Join(err1, err2)
		if want := must(peer.ECDH(own)); err == nil && (!bytes.Equal(made, want) || !bytes.Equal(checked, want)) {
			t.Errorf("%s: %x and %x, want %x", alg, made, checked, want)
		}
	case hsm.FamilyDecrypt:
		sealed, plain := must(hsm.EncryptOAEP(alg, k.Binding.PublicKey, message)), []byte(nil)
		if plain, err = checker.Decrypt(t.Context(), sealed, nil); err == nil && !bytes.Equal(plain, message) {
			t.Errorf("%s: %q", alg, plain)
		}
	default:
		t.Errorf("%s: nothing is exchanged with keys of family %v", alg, alg.Family())
	}
	if err != nil {
		t.Errorf("%s: %v", alg, err)
	}
}

// counter counts log records by message.
type counter struct {
	slog.Handler
	mu   sync.Mutex
	seen map[string]int
}

func newCounter() *counter { return &counter{Handler: slog.DiscardHandler, seen: make(map[string]int)} }

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[r.Message]++
	return nil
}

// TestWrongPIN is told once, tried once, warned of, and leaves nothing open.
func TestWrongPIN(t *testing.T) {
	opt := initialized(t)
	log := newCounter()
	opt.Logger = slog.New(log)
	_, err := pkcs11.Open(opt, []byte("9999-wrong"))
	is(t, "a wrong PIN", err, hsm.ErrPIN)
	for _, want := range []string{"CKR_PIN_INCORRECT (0xA0)", "lock the token"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a wrong PIN: %v does not say %q", err, want)
		}
	}
	if n := log.seen["logging in"]; n != 1 {
		t.Errorf("%d logins for one wrong PIN", n)
	}
	for _, bad := range []string{"", "1", strings.Repeat("1", 300)} {
		_, err := pkcs11.Open(opt, []byte(bad))
		is(t, "a PIN that no token has", err, hsm.ErrPIN)
	}
	if n := log.seen["logging in"]; n != 1 {
		t.Errorf("%d logins: a PIN that cannot be right counted as a try", n)
	}
	token, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatalf("the right PIN after wrong ones: %v", err)
	}
	closeAtEnd(t, token)
}

// TestLookersDoNotLock: a program that only looks does not try a PIN where a wrong one was given, and the owner does.
func TestLookersDoNotLock(t *testing.T) {
	opt := initialized(t)
	token, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = pkcs11.Open(opt, []byte("9999-wrong"))
	is(t, "a wrong PIN", err, hsm.ErrPIN)
	careful := opt
	careful.Careful = true
	_, err = pkcs11.Open(careful, pin)
	if is(t, "looking after a wrong PIN", err, hsm.ErrPIN); err != nil && !strings.Contains(err.Error(), "none is tried here") {
		t.Errorf("looking after a wrong PIN: %v", err)
	}
	for _, o := range []pkcs11.Options{opt, careful} { // the first login ends the count
		token, err := pkcs11.Open(o, pin)
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpeningChangesNothing: a program that looks at a token may be told of the wrong one, or meet it half way through an import.
func TestOpeningChangesNothing(t *testing.T) {
	token, opt := create(t)
	importInto(t, token, 3, persistence(3))
	crash, crashed := errors.New("a crash"), false
	token.OnStep(func(step string) error {
		if crashed = crashed || strings.Contains(step, "kept-master"); crashed {
			return crash
		}
		return nil
	})
	m, err := hsm.DeriveMaster(bytes.Repeat([]byte{0x5a, 4}, 24), "c1", 4)
	if err != nil {
		t.Fatal(err)
	}
	is(t, "an import that is cut off", token.ImportMaster(t.Context(), m, persistence(4)), crash)
	before, err := token.Objects()
	if err != nil {
		t.Fatal(err)
	}
	again := reopen(t, token, opt)
	after, err := again.Objects()
	if err != nil {
		t.Fatal(err)
	}
	onToken := func(all []string) (kept []string) {
		for _, o := range all {
			if strings.HasPrefix(o, "token ") {
				kept = append(kept, o)
			}
		}
		return kept
	}
	if want, got := onToken(before), onToken(after); len(want) != 5+1+3+3 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("on the token was %q, is %q", want, got)
	}
}

// TestAnInterruptedInitializationIsCompleted with the same officer's PIN; a token with a user PIN is never touched.
func TestAnInterruptedInitializationIsCompleted(t *testing.T) {
	opt := unmade(t)
	if err := pkcs11.InitializeHalf(opt, soPIN); err != nil {
		t.Fatal(err)
	}
	if err := pkcs11.Initialize(opt, []byte("another officer"), pin); err == nil {
		t.Error("completed by another officer")
	}
	if err := pkcs11.Initialize(opt, soPIN, pin); err != nil {
		t.Fatal(err)
	}
	is(t, "once more", pkcs11.Initialize(opt, soPIN, pin), hsm.ErrTokenExists)
	token, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, token)
}

func TestOpenRefusals(t *testing.T) {
	token, opt := create(t)
	_, err := pkcs11.Open(opt, pin)
	is(t, "a token that is open", err, pkcs11.ErrInUse)
	_, err = pkcs11.Create(opt, pin)
	is(t, "creating on a token that is open", err, pkcs11.ErrInUse)
	is(t, "initialising a label that exists", pkcs11.Initialize(opt, soPIN, pin), hsm.ErrTokenExists)

	change := func(f func(*pkcs11.Options)) pkcs11.Options {
		o := opt
		f(&o)
		return o
	}
	empty := initialized(t)
	for name, c := range map[string]struct {
		opt  pkcs11.Options
		want error
	}{
		"no such label":       {change(func(o *pkcs11.Options) { o.Label = "nobody" }), fs.ErrNotExist},
		"no such serial":      {change(func(o *pkcs11.Options) { o.Serial = "0000000000000000" }), fs.ErrNotExist},
		"no such module":      {change(func(o *pkcs11.Options) { o.Module = "/nonexistent/module.so" }), fs.ErrNotExist},
		"no node keys":        {empty, pkcs11.ErrNoKeys},
		"a relative path":     {change(func(o *pkcs11.Options) { o.Module = "module.so" }), hsm.ErrInput},
		"no label, no serial": {change(func(o *pkcs11.Options) { o.Label = "" }), hsm.ErrInput},
		"a long label":        {change(func(o *pkcs11.Options) { o.Label = strings.Repeat("x", 33) }), hsm.ErrInput},
		"negative sessions":   {change(func(o *pkcs11.Options) { o.Sessions = -1 }), hsm.ErrInput},
		"another environment": {change(func(o *pkcs11.Options) {
			o.Environment = maps.Clone(o.Environment)
			o.Environment["SOFTHSM2_CONF"] = "/dev/null"
		}), pkcs11.ErrEnvironment},
	} {
		_, err := pkcs11.Open(c.opt, pin)
		is(t, name, err, c.want)
	}
	if _, err := pkcs11.Open(change(func(o *pkcs11.Options) { o.Module = "/etc/passwd" }), pin); err == nil {
		t.Error("a file that is no library was loaded")
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = pkcs11.Create(opt, pin)
	is(t, "creating over node keys", err, hsm.ErrTokenExists)
	opt.Label, opt.Serial = "", token.Info().Serial
	again, err := pkcs11.Open(opt, pin)
	if err != nil {
		t.Fatalf("by its serial: %v", err)
	}
	closeAtEnd(t, again)
}

// TestClosed: whatever comes after Close is refused, and a second Close does nothing.
func TestClosed(t *testing.T) {
	token, _ := create(t)
	importInto(t, token, 1, nil)
	key := openKey(t, token, generate(t, token, hsm.HMACSHA256))
	if err := errors.Join(token.Close(), token.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := key.MAC(t.Context(), nil)
	is(t, "a copy", err, hsm.ErrSealed)
	is(t, "Random", token.Random(make([]byte, 8)), hsm.ErrClosed)
	_, err = token.Identity().Sign(nil, make([]byte, 32), crypto.SHA256)
	is(t, "Identity", err, hsm.ErrClosed)
	_, err = token.Exchange().ECDH(token.Exchange().PublicKey())
	is(t, "Exchange", err, hsm.ErrClosed)
	_, err = token.Master()
	is(t, "Master", err, hsm.ErrClosed)
	is(t, "Seal", token.Seal(t.Context(), true), hsm.ErrClosed)
	_, err = token.Open(t.Context(), hsm.WrappedKey{})
	is(t, "Open", err, hsm.ErrClosed)
}

// TestSessionLeftActive: a worker session on which an operation was left active is replaced, and nobody notices.
func TestSessionLeftActive(t *testing.T) {
	opt := initialized(t)
	opt.Sessions = 4
	token, err := pkcs11.Create(opt, pin)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, token)
	importInto(t, token, 1, nil)
	key := openKey(t, token, generate(t, token, hsm.HMACSHA256))
	if err := token.LeaveOperationActive(); err != nil {
		t.Fatal(err)
	}
	for range 16 { // more than there are sessions
		if _, err := key.MAC(t.Context(), []byte("m")); err != nil {
			t.Errorf("on a session that was left active: %v", err)
		}
	}
}

// TestWaitingForSessions obeys the context.
func TestWaitingForSessions(t *testing.T) {
	token, _ := create(t)
	importInto(t, token, 1, nil)
	key := openKey(t, token, generate(t, token, hsm.HMACSHA256))
	release, err := token.TakeSessions()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { _, err := key.MAC(ctx, nil); result <- err }()
	cancel()
	is(t, "an operation that waits for a session", <-result, context.Canceled)
	release()
	if _, err := key.MAC(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
