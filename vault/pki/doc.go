// Package pki makes and reads the cluster's certificates: two certificate authorities (one signs nodes, one signs clients), and
// SPIFFE ids as the only name in a leaf.
//
// It is not the place that decides who gets a certificate, nor the one that remembers which were issued: the state machine
// does. Private keys of the authorities are here only while something is signed.
package pki
