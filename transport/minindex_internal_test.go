package transport

import (
	"errors"
	"strconv"
	"testing"

	"github.com/conclave-vault/conclave/vault"
)

// FuzzMinIndex: whatever a client puts into the metadata is a number or an error of the one kind.
func FuzzMinIndex(f *testing.F) {
	for _, text := range []string{"", "0", "7", "18446744073709551615", "18446744073709551616", "-1", "+1", "0x7", " 7", "7 ", "1e3", "٣", "\x00"} {
		f.Add(text, false)
	}
	f.Add("7", true)
	f.Fuzz(func(t *testing.T, text string, twice bool) {
		values := []string{text}
		if twice {
			values = append(values, text)
		}
		index, err := minIndex(values)
		switch {
		case err != nil && !errors.Is(err, vault.ErrInvalid):
			t.Fatalf("%q: %v is not ErrInvalid", values, err)
		case err == nil && twice:
			t.Fatalf("%q is taken for %d", values, index)
		case err == nil && text == "":
			t.Fatal("nothing is taken for a number")
		}
		if want, e := strconv.ParseUint(text, 10, 64); e == nil && !twice && (err != nil || index != want) {
			t.Fatalf("%q is %d, %v", text, index, err)
		}
	})
}
