package hsm_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/hsm"
)

func derive(t *testing.T, secret []byte, cluster string, generation uint32) *hsm.Master {
	t.Helper()
	m, err := hsm.DeriveMaster(secret, cluster, generation)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func secret() []byte { return bytes.Repeat([]byte{0xc5}, 48) }

// TestDeriveMasterSeparates: any change of secret, cluster or generation changes all three keys, and they differ from each other.
func TestDeriveMasterSeparates(t *testing.T) {
	seen := make(map[string]string)
	other := secret()
	other[47] ^= 1
	for name, m := range map[string]*hsm.Master{
		"base":               derive(t, secret(), "c1", 1),
		"another secret":     derive(t, other, "c1", 1),
		"another cluster":    derive(t, secret(), "c2", 1),
		"another generation": derive(t, secret(), "c1", 2),
		"a shifted name":     derive(t, secret(), "c1\x00\x00\x00\x00", 1),
	} {
		for part, key := range map[string][]byte{"wrap": m.Wrap, "wrap-export": m.WrapExport, "bind": m.Bind} {
			if before, ok := seen[string(key)]; ok || len(key) != 32 {
				t.Errorf("%s of %q equals %s, %d bytes", part, name, before, len(key))
			}
			seen[string(key)] = part + " of " + name
		}
	}
}

const (
	wantWrap       = "66d9e7481ed91a9d938febe175719a0f28ae9f3ed4606a4f1c3aca1205af8774"
	wantWrapExport = "aa45b1d9fbd89191a9dfcb66959fc8dfd224eb1c0ee1bd0b556594ff1958b026"
	wantBind       = "3218a524203f0a2d701733fe880c7c63c25720d57f675798db35359dc828cf8c"
)

// TestDeriveMasterIsFixed: the keys of existing clusters depend on these bytes. They were computed with
// openssl kdf HKDF.
func TestDeriveMasterIsFixed(t *testing.T) {
	m := derive(t, secret(), "c1", 1)
	for part, c := range map[string]struct {
		got  []byte
		want string
	}{
		"wrap":        {m.Wrap, wantWrap},
		"wrap-export": {m.WrapExport, wantWrapExport},
		"bind":        {m.Bind, wantBind},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s = %s, want %s", part, got, c.want)
		}
	}
}

func TestDeriveMasterRefuses(t *testing.T) {
	for name, err := range map[string]error{
		"a short secret": second(hsm.DeriveMaster(secret()[:31], "c", 1)),
		"no cluster":     second(hsm.DeriveMaster(secret(), "", 1)),
		"no generation":  second(hsm.DeriveMaster(secret(), "c", 0)),
	} {
		if !errors.Is(err, hsm.ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second(_ *hsm.Master, err error) error { return err }

// TestCheckValues: AES-256 of a zero block under a zero key begins dc95c0 (NIST, FIPS 197 known answers).
func TestCheckValues(t *testing.T) {
	m := &hsm.Master{Wrap: make([]byte, 32), WrapExport: make([]byte, 32), Bind: make([]byte, 32)}
	c, err := m.Check()
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(c.Wrap) != "dc95c0" || !bytes.Equal(c.Wrap, c.WrapExport) || len(c.Bind) != 8 {
		t.Errorf("check values %x %x %x", c.Wrap, c.WrapExport, c.Bind)
	}
	if list := c.List(); len(list) != 3 || !bytes.Equal(list[0], c.Wrap) || !bytes.Equal(list[2], c.Bind) {
		t.Errorf("List = %x", list)
	}
	m.Wrap = m.Wrap[:5]
	if _, err := m.Check(); err == nil {
		t.Error("check values of a key that is none")
	}
}

func TestWipe(t *testing.T) {
	m := derive(t, secret(), "c", 1)
	m.Wipe()
	for _, key := range [][]byte{m.Wrap, m.WrapExport, m.Bind} {
		if !bytes.Equal(key, make([]byte, 32)) {
			t.Errorf("%x is left", key)
		}
	}
	var none *hsm.Master
	none.Wipe() // a nil master has nothing to wipe
}

// TestMasterDoesNotPrint: by any verb, as pointer or as value, inside another struct, in logs and in encodings. The test first
// proves that it would see a secret.
func TestMasterDoesNotPrint(t *testing.T) {
	m := derive(t, secret(), "c", 1)
	if !shows(fmt.Sprintf("%v", m.Wrap), m) || !shows(fmt.Sprintf("%x", m.Bind), m) {
		t.Fatal("the test does not find a planted secret")
	}
	outer := struct {
		Name   string
		Master *hsm.Master
		Value  hsm.Master
	}{"x", m, *m}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%X", "%q", "%o"} {
		for _, v := range []any{m, *m, outer, &outer, []*hsm.Master{m}, map[string]hsm.Master{"m": *m}} {
			if got := fmt.Sprintf(verb, v); shows(got, m) || !strings.Contains(got, "redacted") {
				t.Errorf("%s of %T prints %.80q", verb, v, got)
			}
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("m", "pointer", m, "value", *m, "outer", outer)
	}
	encoded, err := json.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{log.String(), string(encoded), m.String(), m.GoString()} {
		if shows(got, m) || !strings.Contains(got, "[redacted]") {
			t.Errorf("a secret, or no placeholder, in %.200q", got)
		}
	}
}

// shows reports whether s holds the first bytes of a key of m in a form that fmt or an encoder would give.
func shows(s string, m *hsm.Master) bool {
	for _, key := range [][]byte{m.Wrap, m.WrapExport, m.Bind} {
		quoted, _ := json.Marshal(key)
		octal := strings.Trim(fmt.Sprintf("%o", key[:4]), "[]")
		for _, form := range []string{
			string(key[:8]), fmt.Sprintf("%x", key[:8]), fmt.Sprintf("%X", key[:8]), strings.Trim(fmt.Sprint(key[:4]), "[]"),
			octal, strings.Trim(fmt.Sprintf("%#v", key[:4]), "[]byte{}"), string(quoted[1:9]),
		} {
			if strings.Contains(s, form) {
				return true
			}
		}
	}
	return false
}
