package transport

import (
	"slices"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// capabilitiesToPB puts beside what a device can do what it cannot, and why.
func capabilitiesToPB(d fsm.Device) []*vaultpb.Capability {
	return each(d.Capabilities, func(c fsm.Capability) *vaultpb.Capability {
		pb := &vaultpb.Capability{Algorithm: c.Algorithm, Operations: c.Operations}
		if i := slices.IndexFunc(d.Lacks, func(l fsm.Lack) bool { return l.Algorithm == c.Algorithm }); i >= 0 {
			pb.Missing, pb.Why = d.Lacks[i].Operations, d.Lacks[i].Why
		}
		return pb
	})
}
