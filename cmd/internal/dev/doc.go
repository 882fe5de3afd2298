// Package dev is `conclave dev`: a whole cluster on one machine with one command, for trying, teaching and testing.
//
// It takes no short cuts: real node processes over loopback with mutual TLS, tokens and joining, a genesis ceremony with three
// custodians and an unseal. What makes it a demonstration is that all secrets lie in one folder, DIR/dev-secrets, and that the
// cluster is marked "dev" for ever.
//
// Every step looks at what is there already, so an interrupted start is taken up where it ended.
package dev
