package hsm

import "errors"

// Errors of the port, grouped by the moment at which they happen. Backends wrap them with %w.
var (
	// ErrPIN: the PIN is wrong. Never retried by a program: a real HSM locks.
	ErrPIN = errors.New("hsm: the PIN is not correct")
	// ErrTokenDamaged: the keystore or the token cannot be read, or does not verify.
	ErrTokenDamaged = errors.New("hsm: the token is damaged")
	// ErrTokenExists: a new token would overwrite an existing one.
	ErrTokenExists = errors.New("hsm: a token exists here already")

	// ErrSealed: no master is open.
	ErrSealed = errors.New("hsm: the token is sealed")
	// ErrNoMaster: no persistent master is kept on the token.
	ErrNoMaster = errors.New("hsm: the token keeps no master")
	// ErrGeneration: the blob was wrapped under another master generation than the open one.
	ErrGeneration = errors.New("hsm: wrapped under another master generation")

	// ErrUnsupported: the token lacks the algorithm or the operation does not fit the key's algorithm.
	ErrUnsupported = errors.New("hsm: not supported")
	// ErrWrappedKey: the blob or its binding does not verify. Not retried.
	ErrWrappedKey = errors.New("hsm: the wrapped key does not verify")
	// ErrInput: an input is outside its limits (digest length, message size).
	ErrInput = errors.New("hsm: the input is not acceptable")
	// ErrVerify: a tag, MAC, signature or ciphertext does not verify. One error for every cause, so that it is no oracle.
	ErrVerify = errors.New("hsm: does not verify")

	// ErrHandle: the device dropped a working copy that was not released; another Open makes a new one. The operation was not done,
	// so it may be repeated, once: a device that drops copies as fast as they are made does not work.
	ErrHandle = errors.New("hsm: the device dropped the working copy")
	// ErrLost: the device is gone, or has forgotten this process. The token is sealed (errors are ErrSealed too) and comes back by
	// itself when the device does, without its master; see the backend for what it does not come back from.
	ErrLost = errors.New("hsm: the token is lost")

	// ErrDevice: the device answered that it failed, for no fault of the caller's; it is neither lost nor sealed. Another node's may do it.
	ErrDevice = errors.New("hsm: the device failed")

	// ErrClosed: the token is closed.
	ErrClosed = errors.New("hsm: the token is closed")
)
