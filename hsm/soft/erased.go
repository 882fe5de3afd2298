package soft

// erased runs what handles secrets, so that a build which can (Erases) erases what it leaves behind: copies of keys in registers and on the
// stack at once, and on the heap when nothing refers to them any more. That reaches what wipe cannot: the schedules and private keys that
// Go's packages keep to themselves. Results are made inside too, and live as long as somebody holds them.
func erased[T any](f func() (T, error)) (result T, err error) {
	erasing(func() { result, err = f() })
	return result, err
}
