// Package cli is the program's commands that speak to a running cluster: keys, cryptography, the cluster, certificates and the log;
// and the frame in which other commands stand: connection flags, output, errors, exit codes.
//
// Rules that users' scripts rely on: data on stdout, everything else on stderr; an error says what, why and the next command,
// and its kind decides the exit code (package transport/kind); JSON is one object, lists are {"items": […], "next_page_token": …},
// names are snake_case, integers are numbers, bytes are standard padded base64, times are RFC 3339 in UTC. Every field is always
// there: a text that is not set is "", a time or an object that is not set is null. YAML is the same object in another encoding.
// Secrets never come from arguments or the environment.
//
// Completing (complete.go) never asks a person, never writes, and says nothing where it has nothing to offer.
//
// It decides nothing about keys: that is the cluster's. It holds no state between commands, and every goroutine it starts has
// ended when a command returns.
package cli
