//go:build goexperiment.runtimesecret

package soft

import (
	"runtime"
	"runtime/secret"
)

// Erases tells whether temporaries of secrets are erased by the runtime: registers and stack when an operation ends, the heap when the
// collector finds that nothing refers to it.
const Erases = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")

func erasing(f func()) { secret.Do(f) }
