// Package bench is `conclave bench`: it measures on this machine what a token costs beside the bare cryptography, in one run, so that
// the ratios mean something though the machine is busy. It uses tokens made for it alone and no node's keys.
package bench
