// Package policy answers one question from the replicated state alone: may this caller do this? It is consulted by the node
// that was called, by the leader again, and by the guard before and after every use of a key.
//
// Today's roles are those of the client certificate: an administrator manages and may use every key; a user may use, and read,
// the keys whose label users= names it; nobody else gets anything. A certificate that the state does not record, or records as
// revoked, is nobody's, so taking a role away is a restriction like any other.
//
// It is pure: no clock (expiry is TLS's and the caller's business), no I/O.
package policy
