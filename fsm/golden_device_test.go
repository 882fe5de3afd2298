package fsm_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
)

// TestGoldenDevice is a log of a founding and a description of the founder's device, with what it can do and cannot, and the digest.
func TestGoldenDevice(t *testing.T) {
	m := fsm.New()
	for i, line := range strings.Fields(string(golden(t, "device-1.hex"))) {
		data, err := hex.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		if r, _, err := m.Apply(uint64(i+1), data); err != nil || r.Code != fsm.CodeOK {
			t.Fatalf("line %d: %+v, %v", i+1, r, err)
		}
	}
	s := m.Publish()
	n, _ := s.Node("n1")
	if len(n.Device.Capabilities) != 2 || len(n.Device.Lacks) != 1 || len(n.Device.Lacks[0].Operations) != 4 {
		t.Errorf("the device is %+v", n.Device)
	}
	want := strings.TrimSpace(string(golden(t, "device-1.digest.hex")))
	if got := fmt.Sprintf("%x", s.Digest()); got != want {
		t.Errorf("the log gives the digest %s, it gave %s when it was written", got, want)
	}
}
