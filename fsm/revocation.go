package fsm

import (
	"slices"
	"strings"
)

// Revocation is why a key is revoked: KMIP's revocation reason code (KMIP 2.1 §11.41), and words.
type Revocation struct {
	Code  string // one of RevocationCodes
	Words string // optional
}

// revocationCodes are KMIP's, in its order and spelt as RFC 5280 spells them. The first two mean that others may know the key.
var revocationCodes = []string{
	"key-compromise", "ca-compromise", "affiliation-changed", "superseded", "cessation-of-operation", "privilege-withdrawn", "unspecified",
}

// RevocationCodes lists the codes.
func RevocationCodes() []string { return slices.Clone(revocationCodes) }

// ParseRevocation reads "CODE" or "CODE: words"; spaces and underscores count as hyphens. Anything else is refused and not taken for
// unspecified: a compromise that is misspelt must not end as a mere deactivation.
func ParseRevocation(reason string) (Revocation, error) {
	code, words, _ := strings.Cut(reason, ":")
	code = strings.NewReplacer(" ", "-", "_", "-").Replace(strings.ToLower(strings.TrimSpace(code)))
	if code == "compromise" {
		code = "key-compromise"
	}
	if !slices.Contains(revocationCodes, code) {
		return Revocation{}, invalid("a revocation's reason begins with one of %s, and may go on with a colon and words; not %q", strings.Join(revocationCodes, ", "), clip(reason))
	}
	return Revocation{Code: code, Words: strings.TrimSpace(words)}, nil
}

// String is the form that ParseRevocation reads.
func (r Revocation) String() string {
	if r.Words == "" {
		return r.Code
	}
	return r.Code + ": " + r.Words
}

func (r Revocation) compromises() bool {
	return r.Code == "key-compromise" || r.Code == "ca-compromise"
}
