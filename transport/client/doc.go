// Package client is the Go SDK of Conclave: every method of the API as a method of Client, over gRPC with mutual TLS 1.3, with
// failover between the nodes it was given.
//
// It speaks only to the addresses in Config, in that order, until Config.Discover says otherwise. A call goes to the node
// that answered last; when that node cannot answer (down, no quorum, no lease, sealed) the call goes to the others in
// order, round after round with growing pauses, until the context ends. A refusal that another node would repeat (not found,
// denied, wrong state …) is returned at once and never retried.
//
// Every write carries a request id, a UUIDv7 made once for each call and kept over retries and failover, so that a write is
// done once however often it was sent. A caller who sets RequestId keeps control of it, and may repeat a call whose
// outcome is unknown by the same id, within the cluster's horizon. Errors are gRPC status errors; package
// transport/kind tells them apart.
//
// It links no server code. A Client starts no goroutine of its own (its gRPC connections do; Close ends them), holds no lock while it
// waits, and is safe for concurrent use.
package client
