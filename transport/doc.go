// Package transport serves the public API: gRPC over mutual TLS 1.3, one service per concern, each method a few lines between a
// protobuf message and a call of package vault.
//
// It is the one place where a connection becomes a caller (identity.go), where an error becomes a status code (errors.go, with
// the table of transport/kind), and where protobuf becomes domain types and back (convert.go). It decides nothing about keys.
//
// Who may connect: whoever shows a certificate that the cluster's client authority signed, with a client's role in it. A node's
// certificate is signed by another authority and is refused in the handshake. Whether the certificate is still honoured is the
// replicated state's word, asked at every call. What strangers and clients can take of the node is written in limits.go; DESIGN.md says
// who is refused where, and what is logged.
package transport
