package vault

import (
	"context"

	"github.com/google/uuid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Rosters is the chain that a custodian's program follows, and the public half of the master.
type Rosters struct {
	ClusterID string
	Chain     []fsm.Roster
	Master    fsm.Master
	Mastered  bool
	Index     uint64
}

// Rosters returns the chain of rosters in force.
func (v *Vault) Rosters(ctx context.Context, c policy.Caller) (Rosters, error) {
	s, err := v.current(ctx)
	if err != nil {
		return Rosters{}, err
	}
	if err := policy.Identify(s, c); err != nil {
		return Rosters{}, err
	}
	m, mastered := s.Master()
	return Rosters{ClusterID: s.Cluster().ID, Chain: s.Rosters(), Master: m, Mastered: mastered, Index: s.Applied()}, nil
}

// StartRoster proposes the next roster version, signed by one custodian.
func (v *Vault) StartRoster(ctx context.Context, c policy.Caller, id fsm.RequestID, r fsm.Roster, who fsm.CustodianName, signature []byte) (fsm.Ceremony, uint64, error) {
	cmd := fsm.StartRoster{
		ID: fsm.CeremonyID(uuid.NewString()), Nonce: make([]byte, 32), Roster: r, TTL: defaultCeremony, Custodian: who, Signature: signature,
	}
	if err := v.cfg.Token.Random(cmd.Nonce); err != nil {
		return fsm.Ceremony{}, 0, err
	}
	hash := fsm.RosterHash(r)
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.roster", string(hash[:]), string(who)), cmd)
}

// SignRoster adds a custodian's signature to the proposed roster.
func (v *Vault) SignRoster(ctx context.Context, c policy.Caller, id fsm.RequestID, which fsm.CeremonyID, who fsm.CustodianName, signature []byte) (fsm.Ceremony, uint64, error) {
	return v.ceremonyWrite(ctx, c, id, requestHash("ceremonies.sign", string(which), string(who)),
		fsm.SignRoster{Ceremony: which, Custodian: who, Signature: signature})
}
