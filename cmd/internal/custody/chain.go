package custody

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// standing is what a cluster shows of its custodians: the verified rosters and the master in force.
type standing struct {
	chain  []fsm.Roster
	master *vaultpb.Master
}

func (s standing) current() fsm.Roster { return s.chain[len(s.chain)-1] }
func (s standing) clusterID() string   { return s.chain[0].ClusterID }

func rostersOf(reply *vaultpb.GetRostersReply) []fsm.Roster {
	chain := make([]fsm.Roster, len(reply.GetRosters()))
	for i, r := range reply.GetRosters() {
		chain[i] = rosterOf(r)
	}
	return chain
}

func verifyChain(chain []fsm.Roster) error {
	if err := fsm.VerifyRosterChain(chain); err != nil {
		return fmt.Errorf("%w: %w", ErrShown, err)
	}
	return nil
}

// readStanding reads and verifies the chain; whether it starts where a custodian's pin says is each holder's own check.
func readStanding(ctx context.Context, api vaultpb.CeremoniesClient, o Options, say Progress) (standing, error) {
	reply, err := persist(ctx, o, say, func() (*vaultpb.GetRostersReply, error) {
		return api.GetRosters(ctx, &vaultpb.GetRostersRequest{})
	})
	if err != nil {
		return standing{}, fmt.Errorf("reading the rosters: %w", err)
	}
	if len(reply.GetRosters()) == 0 || reply.GetMaster() == nil {
		return standing{}, fmt.Errorf("%w: no master is in force: hold the genesis first (conclave ceremony genesis)", ErrCeremony)
	}
	chain := rostersOf(reply)
	return standing{chain, reply.GetMaster()}, verifyChain(chain)
}
