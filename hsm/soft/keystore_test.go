package soft_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
)

func closed(t *testing.T, token *soft.Token) {
	t.Helper()
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
}

func reopen(t *testing.T, path string) *soft.Token {
	t.Helper()
	token, err := soft.Open(path, pin, soft.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, token) })
	return token
}

func testMaster(t testing.TB, generation uint32) *hsm.Master {
	t.Helper()
	m, err := hsm.DeriveMaster(bytes.Repeat([]byte{0x77, byte(generation)}, 24), "c1", generation)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func identityOf(t *testing.T, token *soft.Token) []byte {
	t.Helper()
	b, err := token.Identity().Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTokenSurvivesRestart: the same serial and node keys, a kept master, keys of before; an order to forget holds too.
func TestTokenSurvivesRestart(t *testing.T) {
	token, path := create(t, cheap())
	info, id, ex := token.Info(), identityOf(t, token), token.Exchange().PublicKey().Bytes()
	p := hsm.Persistence{ClusterID: "c1", Generation: 1, UnsealedAt: 42}
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), &p); err != nil {
		t.Fatal(err)
	}
	k, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: hsm.HMACSHA256}, false)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, token)

	token = reopen(t, path)
	if got := token.Info(); got != info || !bytes.Equal(identityOf(t, token), id) || !bytes.Equal(token.Exchange().PublicKey().Bytes(), ex) {
		t.Errorf("after a restart the token is %+v, before %+v, or a node key changed", got, info)
	}
	if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("a restarted token is not sealed: %v", err)
	}
	if got, err := token.RestoreMaster(t.Context()); err != nil || got != p {
		t.Fatalf("RestoreMaster = %+v, %v", got, err)
	}
	key, err := token.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	key.Release()
	if err := token.Seal(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	closed(t, token)

	if _, err := reopen(t, path).RestoreMaster(t.Context()); !errors.Is(err, hsm.ErrNoMaster) {
		t.Errorf("after forgetting: %v", err)
	}
}

func TestFileModeAndLeftovers(t *testing.T) {
	token, path := create(t, cheap())
	if err := os.WriteFile(path+".new", []byte("of a crash"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &hsm.Persistence{ClusterID: "c1", Generation: 1}
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), p); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 || e.Name() != "token" && e.Name() != "token.lock" {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestPIN(t *testing.T) {
	token, path := create(t, cheap())
	closed(t, token)
	for _, wrong := range []string{"0000-test-piN", "0000-test-pin0", "", "1", strings.Repeat("x", 1025)} {
		if _, err := soft.Open(path, []byte(wrong), soft.Options{}); !errors.Is(err, hsm.ErrPIN) || errors.Is(err, hsm.ErrTokenDamaged) {
			t.Errorf("PIN %.20q: %v", wrong, err)
		}
	}
	reopen(t, path) // a wrong PIN leaves nothing locked
	for _, bad := range []string{"", "123", strings.Repeat("x", 1025)} {
		if _, err := soft.Create(filepath.Join(t.TempDir(), "t"), []byte(bad), cheap()); !errors.Is(err, hsm.ErrInput) {
			t.Errorf("creating with PIN %.20q: %v", bad, err)
		}
	}
}

func TestCreateRefusals(t *testing.T) {
	token, path := create(t, cheap())
	if _, err := soft.Create(path, pin, cheap()); !errors.Is(err, soft.ErrInUse) {
		t.Errorf("over an open token: %v", err)
	}
	closed(t, token)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := soft.Create(path, pin, cheap()); !errors.Is(err, hsm.ErrTokenExists) {
		t.Errorf("over a token: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the refused Create changed the file: %v", err)
	}
	if _, err := soft.Create(filepath.Join(t.TempDir(), "no", "folder"), pin, cheap()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no folder: %v", err)
	}
	for name, cost := range map[string]soft.Argon2{
		"no passes": {MemoryKiB: 64, Threads: 1}, "no threads": {Time: 1, MemoryKiB: 64}, "little memory": {Time: 1, MemoryKiB: 15, Threads: 2},
		"much memory": {Time: 1, MemoryKiB: 1 << 30, Threads: 1}, "many passes": {Time: 1 << 30, MemoryKiB: 64, Threads: 1},
		"many threads": {Time: 1, MemoryKiB: 1 << 12, Threads: 255},
	} {
		if _, err := soft.Create(filepath.Join(t.TempDir(), "t"), pin, soft.Options{Argon2: cost}); !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// stuck gives one byte for ever.
type stuck byte

func (s stuck) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s)
	}
	return len(b), nil
}

var errBroken = errors.New("the generator is broken")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

// TestBadRandom: a generator that fails or is stuck at no scalar makes no token, and leaves no file.
func TestBadRandom(t *testing.T) {
	for name, opt := range map[string]soft.Options{
		"broken": {Argon2: cheap().Argon2, Random: broken{}}, "zeros": {Argon2: cheap().Argon2, Random: stuck(0)}, "ones": {Argon2: cheap().Argon2, Random: stuck(0xff)},
	} {
		path := filepath.Join(t.TempDir(), "t")
		if _, err := soft.Create(path, pin, opt); err == nil || name == "broken" && !errors.Is(err, errBroken) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s left a file: %v", name, err)
		}
	}
}

func TestOneProcessPerToken(t *testing.T) {
	token, path := create(t, cheap())
	if _, err := soft.Open(path, pin, soft.Options{}); !errors.Is(err, soft.ErrInUse) {
		t.Errorf("a second Open: %v", err)
	}
	closed(t, token)
	reopen(t, path)
}

// TestLockHoldsAcrossProcesses runs this test's binary again, which must be refused the token and say why.
func TestLockHoldsAcrossProcesses(t *testing.T) {
	if path := os.Getenv("CONCLAVE_TEST_TOKEN"); path != "" {
		_, err := soft.Open(path, pin, soft.Options{})
		if !errors.Is(err, soft.ErrInUse) {
			t.Errorf("the other process: %v", err)
		}
		return
	}
	_, path := create(t, cheap())
	cmd := exec.Command(os.Args[0], "-test.run=^TestLockHoldsAcrossProcesses$", "-test.v")
	cmd.Env = append(os.Environ(), "CONCLAVE_TEST_TOKEN="+path)
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestLockHoldsAcrossProcesses")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestOpenNothing(t *testing.T) {
	dir := t.TempDir()
	if _, err := soft.Open(filepath.Join(dir, "t"), pin, soft.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("opening nothing left %v, %v", entries, err)
	}
}

// TestDamage: one flipped bit anywhere, any cut and anything appended is damage, and no wrong PIN.
func TestDamage(t *testing.T) {
	token, path := create(t, cheap())
	closed(t, token)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, i int, file []byte) {
		t.Helper()
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := soft.Open(path, pin, soft.Options{}); !errors.Is(err, hsm.ErrTokenDamaged) || errors.Is(err, hsm.ErrPIN) {
			t.Errorf("%s %d: %v", what, i, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		check("byte", i, bad)
		check("cut at", i, good[:i])
	}
	check("appended", 1, append(bytes.Clone(good), 0))
	check("appended", 1<<16, append(bytes.Clone(good), make([]byte, 1<<16)...))
}

// resum gives a changed file a right checksum, as a forger would.
func resum(file []byte) []byte {
	body := file[:len(file)-sha256.Size]
	sum := sha256.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

// TestForgedHeader: a header that was changed with its checksum opens nothing, and its costs are bounded before they are obeyed.
func TestForgedHeader(t *testing.T) {
	token, path := create(t, cheap())
	closed(t, token)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func([]byte)
		want   error
	}{
		"version":        {func(b []byte) { binary.BigEndian.PutUint16(b[8:], 2) }, hsm.ErrTokenDamaged},
		"kdf":            {func(b []byte) { b[10] = 9 }, hsm.ErrTokenDamaged},
		"no passes":      {func(b []byte) { binary.BigEndian.PutUint32(b[11:], 0) }, hsm.ErrTokenDamaged},
		"many passes":    {func(b []byte) { binary.BigEndian.PutUint32(b[11:], 1<<31) }, hsm.ErrTokenDamaged},
		"all memory":     {func(b []byte) { binary.BigEndian.PutUint32(b[15:], 1<<31) }, hsm.ErrTokenDamaged},
		"little memory":  {func(b []byte) { binary.BigEndian.PutUint32(b[15:], 1) }, hsm.ErrTokenDamaged},
		"threads":        {func(b []byte) { b[19] = 200 }, hsm.ErrTokenDamaged},
		"aead":           {func(b []byte) { b[36] = 9 }, hsm.ErrTokenDamaged},
		"length":         {func(b []byte) { b[40]++ }, hsm.ErrTokenDamaged},
		"other cost":     {func(b []byte) { binary.BigEndian.PutUint32(b[11:], 2) }, hsm.ErrPIN},
		"other salt":     {func(b []byte) { b[20] ^= 1 }, hsm.ErrPIN},
		"other contents": {func(b []byte) { b[60] ^= 1 }, hsm.ErrPIN},
	} {
		bad := bytes.Clone(good)
		c.change(bad)
		if err := os.WriteFile(path, resum(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := soft.Open(path, pin, soft.Options{}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestReplacedWhileOpen: a file that is not ours any more is never taken for ours, nor overwritten.
func TestReplacedWhileOpen(t *testing.T) {
	token, path := create(t, cheap())
	_, other := create(t, cheap())
	foreign, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, foreign, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := token.RestoreMaster(t.Context()); !errors.Is(err, hsm.ErrTokenDamaged) {
		t.Errorf("RestoreMaster: %v", err)
	}
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), nil); !errors.Is(err, hsm.ErrTokenDamaged) {
		t.Errorf("ImportMaster: %v", err)
	}
	if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("after a failed import: %v", err)
	}
	if err := token.Seal(t.Context(), true); !errors.Is(err, hsm.ErrTokenDamaged) {
		t.Errorf("Seal with forget: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, foreign) {
		t.Errorf("the foreign file was changed: %v", err)
	}
}

// TestUnwritableFolder: an import that cannot be kept is refused, and the token stays sealed.
func TestUnwritableFolder(t *testing.T) {
	token, path := create(t, cheap())
	if err := os.MkdirAll(filepath.Join(path+".new", "occupied"), 0o700); err != nil { // cannot be removed as a leftover
		t.Fatal(err)
	}
	p := &hsm.Persistence{ClusterID: "c1", Generation: 1}
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), p); err == nil {
		t.Error("kept where nothing can be written")
	}
	if _, err := token.Master(); !errors.Is(err, hsm.ErrSealed) {
		t.Errorf("after a failed import: %v", err)
	}
	if err := token.ImportMaster(t.Context(), testMaster(t, 1), nil); err != nil {
		t.Errorf("without persistence: %v", err)
	}
}

// TestFileShowsNothing: no key of the token, raw or in hex, is in any file. The test first finds a planted one.
func TestFileShowsNothing(t *testing.T) {
	token, path := create(t, cheap())
	m := testMaster(t, 1)
	if err := token.ImportMaster(t.Context(), m, &hsm.Persistence{ClusterID: "c1", Generation: 1}); err != nil {
		t.Fatal(err)
	}
	planted := filepath.Join(filepath.Dir(path), "planted")
	if err := os.WriteFile(planted, []byte("x"+hex.EncodeToString(m.Bind)), 0o600); err != nil {
		t.Fatal(err)
	}
	canaries := [][]byte{m.Wrap, m.WrapExport, m.Bind, pin, []byte(token.Info().Serial)}
	if found := scan(t, filepath.Dir(path), canaries); len(found) != 1 || found[0] != "planted" {
		t.Errorf("secrets in %v, want them in the planted file only", found)
	}
}

func scan(t *testing.T, dir string, canaries [][]byte) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range canaries {
			if bytes.Contains(b, c) || bytes.Contains(b, []byte(hex.EncodeToString(c))) {
				found = append(found, e.Name())
			}
		}
	}
	return found
}
