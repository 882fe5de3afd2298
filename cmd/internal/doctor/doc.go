// Package doctor is `conclave doctor`: it looks at a node's host for what stands in the way of a good node, and says of each thing
// what was found and what to do.
//
// It only looks. The one thing that it writes is a nameless temporary file, to measure how long the disk takes to keep something; it
// never shows a secret, never asks a person, and may run beside the node's server and before the node's first start. Opening the
// soft token takes its lock for the third of a second that the PIN costs: a server that is started in this moment says that the
// token is in use, and has to be started again.
//
// A check is a function of a checkup and never an error: what could not be looked at is a Result too. What the kernel is asked goes
// through host, so that tests can answer for a kernel that they cannot make.
package doctor
