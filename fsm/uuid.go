package fsm

import (
	"strconv"
	"time"
)

// validUUID accepts the canonical text form of RFC 9562 only: one spelling for one id, so that "never reused" can be checked
// by comparing text.
func validUUID(what, s string) error {
	if !isUUID(s) {
		return invalid("%s %q is no UUID in canonical lower-case form", what, clip(s))
	}
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	return isLowerHex(s[0:8]) && isLowerHex(s[9:13]) && isLowerHex(s[14:18]) && isLowerHex(s[19:23]) && isLowerHex(s[24:])
}

// uuidTime is the time in a UUIDv7 (RFC 9562 §5.7): its first 48 bits are Unix milliseconds.
func uuidTime(s string) (time.Time, bool) {
	if !isUUID(s) || s[14] != '7' || s[19] != '8' && s[19] != '9' && s[19] != 'a' && s[19] != 'b' {
		return time.Time{}, false
	}
	ms, err := strconv.ParseInt(s[0:8]+s[9:13], 16, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.UnixMilli(ms).UTC(), true
}
