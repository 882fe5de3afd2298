package transport

import "time"

// Limits of the API port, all of them. What strangers can take: maxUnproved connections for handshakeTimeout, each with TLS's own
// bounds (64 KiB of handshake, 256 KiB of certificates). What clients can take: maxInFlight requests of maxRequest; one
// client, maxInFlightPerClient of them.
const (
	// maxRequest leaves room around the largest data (1 MiB) with its associated data, and around a bundle of shares for 64 nodes.
	maxRequest = 2 << 20
	// maxReply leaves room around the largest page of records (2 MiB).
	maxReply = 8 << 20
	// maxHeaderBytes bounds the headers of a request: gRPC's own take some hundred bytes.
	maxHeaderBytes = 16 << 10
	// maxStreams is how many calls may be under way on one connection; clients wait for their turn and do not fail.
	maxStreams = 128
	// maxInFlight is how many calls may be under way in all; one more is refused before a byte of its message is read.
	maxInFlight = 1024
	// maxInFlightPerClient keeps one client's programs from taking all of these.
	maxInFlightPerClient = maxInFlight / 2
	// maxConns bounds connections; a client has one.
	maxConns = 4096
	// maxUnproved bounds those that have not finished the handshake, and maxUnprovedPerHost those of one host.
	maxUnproved        = 512
	maxUnprovedPerHost = 128
	// handshakeTimeout bounds TLS and the first words of HTTP/2 together.
	handshakeTimeout = 5 * time.Second
	// idleTimeout ends a connection without calls; probeTime and probeTimeout one whose other end is gone.
	idleTimeout  = 10 * time.Minute
	probeTime    = time.Minute
	probeTimeout = 20 * time.Second
	// stopTimeout bounds the wait for calls under way when the node stops.
	stopTimeout = 3 * time.Second
	// maxCall bounds a call from its headers on, the arrival of its message included, whatever deadline the client sets.
	maxCall = 2 * time.Minute
	// lingerTime and lingerBytes bound for how long and for how much a refused connection is kept.
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)
