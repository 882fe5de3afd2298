package custody

import (
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ceremonyView is a ceremony as it is printed: who, where, what is still missing. Sealed shares and Feldman commitments are left
// out: they are for programs, and the commitments hide the master computationally only.
type ceremonyView struct {
	ID         string           `json:"id"`
	Purpose    string           `json:"purpose"`
	Phase      string           `json:"phase"`
	Reason     string           `json:"reason"`
	StartedBy  string           `json:"started_by"`
	StartedAt  string           `json:"started_at"`
	ExpiresAt  string           `json:"expires_at"`
	EndedAt    *string          `json:"ended_at"`
	Cluster    string           `json:"cluster"`
	Dealer     string           `json:"dealer"`
	Threshold  uint32           `json:"threshold"`
	Roster     string           `json:"roster_sha256"`
	Nodes      []string         `json:"nodes"`
	Custodians []memberView     `json:"custodians"`
	Generation uint32           `json:"master_generation"`
	Check      []string         `json:"check_values"`
	Verdicts   []verdictView    `json:"verdicts"`
	Unsealed   []string         `json:"unsealed"`
	Steps      []map[string]any `json:"steps"`
}

type memberView struct {
	Name         string `json:"name"`
	Committed    bool   `json:"committed"`
	Revealed     bool   `json:"revealed"`
	Acknowledged bool   `json:"acknowledged"`
	Signed       bool   `json:"signed"`
}

type verdictView struct {
	Custodian string `json:"custodian"`
	Node      string `json:"node"`
	Accepted  bool   `json:"accepted"`
	Reason    string `json:"reason"`
	At        string `json:"at"`
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339Nano)
}

func newCeremonyView(c *vaultpb.Ceremony) ceremonyView {
	v := ceremonyView{
		ID: c.GetId(), Purpose: c.GetPurpose(), Phase: c.GetPhase(), Reason: c.GetReason(), StartedBy: c.GetStartedBy(),
		StartedAt: stamp(c.GetStartedAt()), ExpiresAt: stamp(c.GetExpiresAt()), Dealer: c.GetDealer(),
		Nodes: []string{}, Custodians: []memberView{}, Check: []string{}, Verdicts: []verdictView{}, Unsealed: []string{}, Steps: []map[string]any{},
	}
	if c.GetEndedAt() != nil {
		ended := stamp(c.GetEndedAt())
		v.EndedAt = &ended
	}
	v.Unsealed = append(v.Unsealed, c.GetUnsealed()...)
	v.Generation = c.GetDeal().GetGeneration()
	for _, check := range c.GetDeal().GetCheck() {
		v.Check = append(v.Check, hex.EncodeToString(check))
	}
	v.addRoster(ceremonyOf(c))
	for _, s := range c.GetVerdicts() {
		v.Verdicts = append(v.Verdicts, verdictView{s.GetCustodian(), s.GetNode(), s.GetAccepted(), s.GetReason(), stamp(s.GetAt())})
	}
	for _, s := range c.GetSteps() {
		v.Steps = append(v.Steps, map[string]any{
			"at": stamp(s.GetAt()), "index": s.GetIndex(), "who": s.GetWho(), "action": s.GetAction(), "detail": s.GetDetail(),
		})
	}
	return v
}

// addRoster fills in who takes part; an unseal has no roster of its own.
func (v *ceremonyView) addRoster(c fsm.Ceremony) {
	if len(c.Roster.Custodians) == 0 {
		return
	}
	hash := fsm.RosterHash(c.Roster)
	v.Cluster, v.Threshold, v.Roster = c.Roster.ClusterID, c.Roster.Threshold, hex.EncodeToString(hash[:])
	for _, n := range c.Roster.Nodes {
		v.Nodes = append(v.Nodes, string(n.ID))
	}
	signed := map[fsm.CustodianName]bool{}
	for _, s := range c.Roster.Signatures {
		signed[s.Custodian] = true
	}
	for _, m := range c.Roster.Custodians {
		e, committed := entryOf(c, m.Name)
		v.Custodians = append(v.Custodians, memberView{string(m.Name), committed, e.Revealed, e.Acknowledged, signed[m.Name]})
	}
}
