package vault

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
)

const someKey = "0d6f4b0e-6d5c-4f0a-9b1e-0123456789ab"

func mustHeader(t testing.TB, id fsm.KeyID, v fsm.Version) header {
	t.Helper()
	h, err := newHeader(id, v)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHeaderIsStable: ciphertexts outlive releases, so the bytes are written out.
func TestHeaderIsStable(t *testing.T) {
	h := mustHeader(t, someKey, 258)
	want := "\x01\x0d\x6f\x4b\x0e\x6d\x5c\x4f\x0a\x9b\x1e\x01\x23\x45\x67\x89\xab\x00\x00\x01\x02"
	if got := string(h.encode()); got != want {
		t.Errorf("the header is %x, want %x", got, want)
	}
	wantAAD := "conclave/v1/ciphertext" + want + "\x00\x00\x00\x02" +
		"\x00\x00\x00\x03app" + "\x00\x00\x00\x02eu" + "\x00\x00\x00\x04user" + "\x00\x00\x00\x00"
	if got := string(h.aad(Context{"user": "", "app": "eu"})); got != wantAAD {
		t.Errorf("the associated data are %q, want %q", got, wantAAD)
	}
	if got := string(h.aad(nil)); got != "conclave/v1/ciphertext"+want+"\x00\x00\x00\x00" {
		t.Errorf("without a context they are %q", got)
	}
}

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		v := fsm.Version(rapid.Uint32Min(1).Draw(t, "version"))
		body := rapid.SliceOfN(rapid.Byte(), 12+16, 64).Draw(t, "body")
		h, err := newHeader(fsm.KeyID(id.String()), v)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := parseHeader(append(h.encode(), body...))
		if err != nil || got != h || got.version != v || !got.names(fsm.KeyID(id.String())) || !bytes.Equal(rest, body) {
			t.Fatalf("%+v, %x, %v", got, rest, err)
		}
	})
}

func TestParseHeaderRefuses(t *testing.T) {
	good := append(mustHeader(t, someKey, 1).encode(), make([]byte, 12+16)...)
	if _, _, err := parseHeader(good); err != nil {
		t.Fatalf("the shortest ciphertext, of nothing: %v", err)
	}
	changed := func(at int, b byte) []byte {
		c := slices.Clone(good)
		c[at] = b
		return c
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "format 0": changed(0, 0), "a newer format": changed(0, 2), "version 0": changed(headerSize-1, 0), "text": []byte(strings.Repeat("x", 100)),
	} {
		if h, rest, err := parseHeader(b); !errors.Is(err, errHeader) || h != (header{}) || rest != nil {
			t.Errorf("%s: %+v, %x, %v", name, h, rest, err)
		}
	}
	for n := range good {
		if _, _, err := parseHeader(good[:n]); !errors.Is(err, errHeader) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestHeaderNamesOneKey(t *testing.T) {
	h := mustHeader(t, someKey, 1)
	for _, other := range []fsm.KeyID{"", "0d6f4b0e-6d5c-4f0a-9b1e-0123456789ac", fsm.KeyID(strings.ToUpper(someKey)), "{" + someKey + "}"} {
		if h.names(other) {
			t.Errorf("it names %q", other)
		}
	}
	if _, err := newHeader("payments/eu", 1); err == nil {
		t.Error("a header for an id that is no UUID")
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, maxOverhead))
	f.Add(append(mustHeader(f, someKey, 1).encode(), make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := parseHeader(b)
		if err != nil {
			return
		}
		if h.version == 0 || len(rest) < 12+16 || !bytes.Equal(append(h.encode(), rest...), b) {
			t.Errorf("%x was read as %+v and %x", b, h, rest)
		}
	})
}

func contexts() *rapid.Generator[map[string]string] {
	return rapid.MapOfN(rapid.StringOfN(rapid.RuneFrom([]rune("ab=,\x00\x01")), 0, 4, -1), rapid.StringOfN(rapid.RuneFrom([]rune("ab=,\x00\x01")), 0, 4, -1), 0, 4)
}

// TestContextsAreUnambiguous: two contexts give the same associated data only if they are the same, whatever their names and values
// hold, and in whatever order a map gives its pairs.
func TestContextsAreUnambiguous(t *testing.T) {
	h := mustHeader(t, someKey, 1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := contexts().Draw(t, "a"), contexts().Draw(t, "b")
		if equal := bytes.Equal(h.aad(a), h.aad(b)); equal != maps.Equal(a, b) {
			t.Fatalf("%q and %q: the same associated data: %v", a, b, equal)
		}
		if again := h.aad(maps.Clone(a)); !bytes.Equal(again, h.aad(a)) {
			t.Fatalf("%q gives two different data", a)
		}
	})
	for _, pair := range [][2]Context{
		{{"a": "b"}, {"b": "a"}}, {{"ab": ""}, {"a": "b"}}, {{"ab": ""}, {"": "ab"}}, {{"a": "b", "c": "d"}, {"a": "bcd"}},
		{{"a": "b", "c": "d"}, {"a": "d", "c": "b"}}, {nil, {"": ""}}, {{"a": "\x00\x00\x00\x01b"}, {"a": "", "b": ""}},
	} {
		if bytes.Equal(h.aad(pair[0]), h.aad(pair[1])) {
			t.Errorf("%q and %q give the same associated data", pair[0], pair[1])
		}
	}
}

func TestAssociatedDataBindTheHeader(t *testing.T) {
	one := mustHeader(t, someKey, 1)
	for _, other := range []header{mustHeader(t, someKey, 2), mustHeader(t, "0d6f4b0e-6d5c-4f0a-9b1e-0123456789ac", 1)} {
		if bytes.Equal(one.aad(nil), other.aad(nil)) {
			t.Errorf("%+v and %+v give the same associated data", one, other)
		}
	}
}

func TestContextLimits(t *testing.T) {
	pairs := func(n int) Context {
		c := Context{}
		for i := range n {
			c[string(rune('a'+i))] = ""
		}
		return c
	}
	for name, c := range map[string]struct {
		context Context
		ok      bool
	}{
		"none": {nil, true}, "an empty value": {Context{"a": ""}, true}, "most pairs": {pairs(maxContextPairs), true},
		"a pair too many": {pairs(maxContextPairs + 1), false}, "no name": {Context{"": "x"}, false},
		"most bytes":      {Context{"ab": strings.Repeat("x", maxContextBytes-2)}, true},
		"a byte too many": {Context{"ab": strings.Repeat("x", maxContextBytes-1)}, false},
	} {
		if err := c.context.validate(); (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
