// Package keyuse is the port through which keys are used: the only one that unwraps. vault/guard is its only importer besides
// the backends and the gate in front of them (hsm/fips), which uses none; a test of the import graph enforces it, which makes "every use of a key passed the guard" a fact of the build.
//
// It is a port only: hsm/soft implements it, hsm/hsmtest says what every implementation must do. It knows no policy and no key
// states; whoever calls it has decided already.
package keyuse
