package fsm

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what the state machine accepts. They bound memory, snapshots and every node's work per entry; raising one is
// harmless only when every node does, so a change belongs to a feature level.
const (
	MaxEntry = 1 << 20 // bytes of an encoded entry: room for a deal of 16 shares and an init, far below raft's batch

	MaxKeyName = 512  // bytes: a path of some levels
	MaxReason  = 512  // bytes: a sentence, not a report
	MaxLabels  = 64   // per key
	MaxLabel   = 128  // bytes of a label's name
	MaxValue   = 4096 // bytes of a label's value: the label "users" lists names
	MaxKeys    = 1_000_000
	// MaxVersions per key bounds what one change of a key copies (each version is about 0.6 KiB, with an ML-DSA-87 public key 3.2).
	MaxVersions = 1000

	MaxNodes        = 64 // a serving set is waited for one by one on every restriction
	MaxCustodians   = 16 // people in one ceremony
	MaxJoinTokens   = 256
	MaxCertificates = 50_000 // valid ones: at the limit the expired are forgotten
	MaxRosters      = 1000   // custodians' programs follow the whole chain
	MaxCeremonies   = 16     // kept; the log has them all
	MaxBarriers     = 16_384 // four seconds, about the longest lease, of some thousand restrictions each

	// RequestHorizon is how long, in log time, a request id is remembered. An older one is refused and never executed again.
	RequestHorizon = 10 * time.Minute
	// MaxRequests per actor within the horizon: 16 per second, sustained, for one identity.
	MaxRequests = 10_000
	// MaxAllRequests bounds them for all actors together, from feature level 2 on: 3300 writes a second, sustained, and about 0.6 GB.
	MaxAllRequests = 2_000_000

	// MaxJoinTokenLife and MaxCertificateLife (the CA/Browser Forum's 398 days) have a minute of grace, because the proposer
	// reads its own clock and the leader stamps with another.
	MaxJoinTokenLife   = 24*time.Hour + clockGrace
	MaxCertificateLife = 398*24*time.Hour + clockGrace
	MaxCeremonyLife    = 24 * time.Hour
	DefaultCeremonyTTL = time.Hour
	MaxDestroyWait     = 10 * 365 * 24 * time.Hour

	clockGrace = 2 * time.Minute
)

// Sizes of the material and of what travels beside it.
const (
	maxBlob         = 4096 // RFC 5649 of a PKCS#8 RSA-4096 key needs 2384
	maxPublicKey    = 3072 // DER SubjectPublicKeyInfo; ML-DSA-87 needs 2614
	macSize         = 32   // HMAC-SHA-256
	hashSize        = 32
	nonceSize       = 32
	exchangeKeySize = 65 // uncompressed P-256 point
	signingKeySize  = 32 // Ed25519
	maxCertificate  = 16 << 10
	maxSecrets      = 16 << 10
	maxAddress      = 261 // a DNS name of 253, a colon and a port
	maxAlgorithms   = 64
	maxShort        = 128 // bytes of boot ids, models, datacenters, algorithm names
	maxBoot         = 36  // bytes of a boot id in a receipt, from feature level 4 on: a UUID; with longer ones a key's record could grow beyond maxRecord
	maxLibrary      = 512 // bytes of a library's name and version, and of what a device lacks
	maxActor        = 512
	maxRecipient    = 256 // age1… is 62 today
	maxShare        = 4096
	maxPoint        = 97 // P-384, compressed 49, uncompressed 97
	maxCheck        = 32
	maxSteps        = 256 // lines of one ceremony's minutes
	maxSerial       = 40  // RFC 5280: 20 octets
)

// ValidKeyName accepts a path: parts of letters, digits, '.', '_' and '-', joined by single slashes, each part beginning
// with a letter or digit. So a name is never mistaken for an option, a folder above or an empty part.
func ValidKeyName(s string) error {
	if s == "" || len(s) > MaxKeyName {
		return invalid("a key name has 1 to %d bytes, this one %d", MaxKeyName, len(s))
	}
	for part := range strings.SplitSeq(s, "/") {
		if !isName(part, MaxKeyName) {
			return invalid("key name %q: each part between slashes begins with a letter or digit and goes on with letters, digits, '.', '_' or '-'", s)
		}
	}
	return nil
}

// ValidNodeID accepts a DNS label, because certificates and gossip carry it: a-z, 0-9 and '-', 1 to 63 characters, not
// beginning or ending with '-'.
func ValidNodeID(s string) error {
	if !isDNSLabel(s) {
		return invalid("node id %q: 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'", clip(s))
	}
	return nil
}

// ValidPersonName accepts the names of custodians, administrators and users, which are path elements of their URIs.
func ValidPersonName(s string) error {
	if !isName(s, 64) {
		return invalid("name %q: 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", clip(s))
	}
	return nil
}

// ValidClusterID accepts the trust domain of the cluster's URIs.
func ValidClusterID(s string) error {
	if len(s) > 253 {
		return invalid("a cluster id has at most 253 bytes, this one %d", len(s))
	}
	for part := range strings.SplitSeq(s, ".") {
		if !isDNSLabel(part) {
			return invalid("cluster id %q: DNS labels of a-z, 0-9 and '-', joined by dots", clip(s))
		}
	}
	return nil
}

// ValidLabel accepts a label's name and value.
func ValidLabel(l Label) error {
	if !isName(l.Name, MaxLabel) {
		return invalid("label name %q: 1 to %d letters, digits, '.', '_' or '-', beginning with a letter or digit", clip(l.Name), MaxLabel)
	}
	if err := validText("the value of label "+l.Name, l.Value, MaxValue); err != nil {
		return err
	}
	if l.Name != usersLabel {
		return nil
	}
	for _, name := range splitUsers(l.Value) {
		if err := ValidPersonName(name); err != nil {
			return err
		}
	}
	return nil
}

// ValidReason accepts words for the log; empty only where a reason is optional.
func ValidReason(s string) error { return validText("the reason", s, MaxReason) }

// validText accepts UTF-8 without control characters, so that what is logged and shown is what was written.
func validText(what, s string, limit int) error {
	if len(s) > limit {
		return invalid("%s has at most %d bytes, this one %d", what, limit, len(s))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return invalid("%s has control characters or is not UTF-8", what)
	}
	return nil
}

// validSize accepts bytes between two lengths.
func validSize(what string, b []byte, least, most int) error {
	if len(b) >= least && len(b) <= most {
		return nil
	}
	if least == most {
		return invalid("%s has %d bytes, not %d", what, len(b), most)
	}
	return invalid("%s has %d bytes, not %d to %d", what, len(b), least, most)
}

func isName(s string, limit int) bool {
	if s == "" || len(s) > limit || !isAlphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func isDNSLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// clip keeps what is quoted back in a message short, whatever came in. It cuts on a rune boundary, so that the message stays
// the valid UTF-8 that snapshots demand.
func clip(s string) string {
	const limit = 80
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
