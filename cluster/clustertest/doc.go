// Package clustertest has what tests need to run whole clusters in one process: a network in memory whose links can be cut and
// slowed down, storage in memory that survives a node's restart, and a certificate authority.
//
// Everything works inside a testing/synctest bubble: no goroutine of its own, and all waiting is on channels and timers.
package clustertest
