package e2e_test

import (
	"testing"
	"time"
)

// pollEvery is the pause between two looks.
const pollEvery = 20 * time.Millisecond

// eventually looks until try has no complaint; the last complaint fails the test.
func eventually(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	if err := patiently(within, try); err != nil {
		t.Fatalf("%s: not within %s: %v", what, within, err)
	}
}

func patiently(within time.Duration, try func() error) error {
	deadline := time.Now().Add(within)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(pollEvery)
	}
}
