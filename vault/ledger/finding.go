package ledger

import "fmt"

// Finding is what a verification found wrong: from which leaf on the log is not what was signed.
type Finding struct {
	Leaf   *uint64 // nil if it cannot be told which
	Reason string
}

func (f *Finding) Error() string {
	if f.Leaf == nil {
		return f.Reason
	}
	return fmt.Sprintf("leaf %d: %s", *f.Leaf, f.Reason)
}

func finding(format string, args ...any) *Finding {
	return &Finding{Reason: fmt.Sprintf(format, args...)}
}

func findingAt(leaf uint64, format string, args ...any) *Finding {
	f := finding(format, args...)
	f.Leaf = &leaf
	return f
}
