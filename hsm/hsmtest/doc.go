// Package hsmtest is the conformance suite of the HSM port: what every backend must do, in the same words for all.
//
// It makes wrapped keys by a path of its own (hsm/keywrap and the master's clear keys), so a backend that is wrong in the same
// way on both sides is found out, and backends that pass can share a catalog.
//
// An algorithm that a token says it lacks must be refused and is passed over otherwise, except for the three that everything else here
// is tried with: aes-256-gcm, hmac-sha256 and ecdsa-p256.
//
// It is not a benchmark and not a test of a keystore file: those stand beside their backend.
package hsmtest
