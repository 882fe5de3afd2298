// Package memlock is memory outside the Go heap for secrets: locked against swapping and left out of core dumps where the system
// allows. It knows nothing of what is kept in it.
//
// A program that may not lock memory still has to start, so an error here is something to say and not something to stop for.
package memlock
