package hsm

// DeriveKey is the key derivation function of masters.
var DeriveKey = deriveKey
