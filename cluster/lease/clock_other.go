//go:build !linux

package lease

// BootTime returns the clock that also runs while the machine sleeps; nil where there is none.
func BootTime() Clock { return nil }
