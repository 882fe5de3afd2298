// Package selftest has published keys with which backends test themselves at their start: NIST CAVP, FIPS 186-3 SigVer15, one RSA key of
// each size, as PKCS#8. Searching for primes at every start would take seconds. They protect nothing.
package selftest

import _ "embed"

var (
	//go:embed rsa2048.der
	rsa2048 []byte
	//go:embed rsa3072.der
	rsa3072 []byte
	//go:embed rsa4096.der
	rsa4096 []byte
)

// RSA is the PKCS#8 DER of a key of so many bits; nil if there is none. It must not be changed.
func RSA(bits int) []byte {
	switch bits {
	case 2048:
		return rsa2048
	case 3072:
		return rsa3072
	case 4096:
		return rsa4096
	}
	return nil
}
