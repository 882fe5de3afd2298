// Package token opens the token that a node's configuration names: the embedded one, or a device behind PKCS#11. It never takes one
// for the other: a device that does not open is an error, and no key of the node ends in a file because a library was missing.
package token
