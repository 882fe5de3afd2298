// Package fsmpb is the wire form of the state machine's log entries and snapshot records. Only fsm imports it: above fsm
// there are Go structs. Field numbers are append-only, because logs and snapshots outlive releases.
package fsmpb
