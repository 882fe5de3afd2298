// Package gate stands between the network and gRPC's servers, the public one and those of the cluster port. It sees what gRPC
// refuses without a word to anybody: bytes that are no HTTP/2, frames that are too long or that end in the middle, calls of methods
// that do not exist, messages that are too long or cannot be decoded. Each becomes one line of a refusal.Log.
//
// It is not a second implementation of HTTP/2: it follows the lengths of frames and nothing else. What passes it may still be
// refused by gRPC.
//
// Locks: none. A Conn is read by one goroutine at a time, as gRPC's reader does.
package gate
