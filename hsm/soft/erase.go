//go:build !goexperiment.runtimesecret

package soft

// Erases tells whether temporaries of secrets are erased by the runtime: registers and stack when an operation ends, the heap when the
// collector finds that nothing refers to it. A build with GOEXPERIMENT=runtimesecret does, on linux/amd64 and linux/arm64.
const Erases = false

func erasing(f func()) { f() }
