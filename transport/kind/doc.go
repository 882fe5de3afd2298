// Package kind is the one table of the kinds of error that cross the wire: for each its name (the reason of a
// google.rpc.ErrorInfo of domain "conclave"), its gRPC code, the exit code of the program, and what it means.
//
// Servers turn their errors into New; clients decide with Of and ExitCode, never by a message. The package links no server
// and no client code, so both sides, and users' own programs, share it.
//
// Invariants: kinds are append-only and never change their gRPC or exit code, because users' scripts rely on them; a kind
// that a program does not know (of a newer cluster) falls back to the gRPC code that carries it.
package kind
