package custody

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// participant is one identity's place in it. The entropy is in memory only: a copy on a disk would outlive its use.
type participant struct {
	*Holder
	entropy                           [ceremony.EntropySize]byte
	commitRequest, acknowledgeRequest string
	committed, revealed, acknowledged bool
}

func newParticipant(h *Holder) (*participant, error) {
	p := &participant{Holder: h}
	_, _ = rand.Read(p.entropy[:]) // never fails (crypto/rand)
	var err error
	if p.commitRequest, err = newRequestID(); err != nil {
		return nil, err
	}
	p.acknowledgeRequest, err = newRequestID()
	return p, err
}

func entryOf(c fsm.Ceremony, who fsm.CustodianName) (fsm.EntropyCommitment, bool) {
	i := slices.IndexFunc(c.Commitments, func(e fsm.EntropyCommitment) bool { return e.Custodian == who })
	if i < 0 {
		return fsm.EntropyCommitment{}, false
	}
	return c.Commitments[i], true
}

func (g *genesis) commit(ctx context.Context, c fsm.Ceremony, p *participant) error {
	if p.committed {
		return nil
	}
	if _, already := entryOf(c, p.Name()); already {
		return fmt.Errorf("%w: it committed from another run of this program, whose contribution is not known here: end it with conclave ceremony abort %s", ErrCeremony, c.ID)
	}
	commitment := ceremony.CommitEntropy(c.ID, c.Nonce, p.Name(), p.entropy)
	in := &vaultpb.CommitEntropyRequest{
		RequestId: p.commitRequest, Ceremony: string(c.ID), Custodian: string(p.Name()), Commitment: commitment[:],
		Signature:       p.Sign(fsm.CommitmentMessage(c.ID, c.Nonce, p.Name(), commitment[:])),
		RosterSignature: p.Sign(fsm.RosterMessage(fsm.RosterHash(c.Roster))),
	}
	_, err := persist(ctx, g.o, g.say, func() (*vaultpb.CeremonyReply, error) { return g.api.CommitEntropy(ctx, in) })
	if err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	p.committed = true
	g.say.sayf("%s committed and signed the roster", p.Name())
	return nil
}

func (g *genesis) reveal(ctx context.Context, c fsm.Ceremony, p *participant) error {
	entry, committed := entryOf(c, p.Name())
	if p.revealed || entry.Revealed {
		return nil
	}
	if err := ceremony.CheckEntropy(entry.Commitment, c.ID, c.Nonce, p.Name(), p.entropy[:]); !committed || err != nil {
		return fmt.Errorf("%w: its commitment is not the one of this run: end it with conclave ceremony abort %s", ErrCeremony, c.ID)
	}
	key, err := exchangeKeyOf(c.Roster, c.Dealer)
	if err != nil {
		return err
	}
	sealed, err := ceremony.SealToNode(key, ceremony.Info{
		ClusterID: c.Roster.ClusterID, Ceremony: c.ID, Node: c.Dealer, Custodian: p.Name(), Purpose: ceremony.PurposeEntropy,
	}, p.entropy[:])
	if err != nil {
		return err
	}
	in := &vaultpb.RevealEntropyRequest{Ceremony: string(c.ID), Custodian: string(p.Name()), Sealed: sealed}
	in.Signature = p.Sign(ceremony.RevealMessage(c.ID, c.Nonce, p.Name(), sealed))
	_, err = persist(ctx, g.o, g.say, func() (*vaultpb.CeremonyReply, error) { return g.api.RevealEntropy(ctx, in) })
	if err != nil {
		return fmt.Errorf("revealing to node %s: %w", c.Dealer, err)
	}
	p.revealed = true
	g.say.sayf("%s sent its contribution, sealed to node %s", p.Name(), c.Dealer)
	return nil
}

// acknowledge verifies and stores the share first: the acknowledgement is the custodian's word that it can open it later.
func (g *genesis) acknowledge(ctx context.Context, c fsm.Ceremony, p *participant) error {
	if entry, _ := entryOf(c, p.Name()); p.acknowledged || entry.Acknowledged {
		return nil
	}
	if err := g.checkDeal(c, p); err != nil {
		return fmt.Errorf("%w; the share is not acknowledged: end it with conclave ceremony abort %s", err, c.ID)
	}
	if err := p.save(); err != nil {
		return err
	}
	in := &vaultpb.AcknowledgeShareRequest{
		RequestId: p.acknowledgeRequest, Ceremony: string(c.ID), Custodian: string(p.Name()),
		Signature: p.Sign(fsm.AcknowledgementMessage(c.ID, p.Name(), c.Deal.Transcript)),
	}
	_, err := persist(ctx, g.o, g.say, func() (*vaultpb.CeremonyReply, error) { return g.api.AcknowledgeShare(ctx, in) })
	if err != nil {
		return fmt.Errorf("acknowledging: %w", err)
	}
	p.acknowledged = true
	g.say.sayf("%s verified and stored its share, and acknowledged it", p.Name())
	return nil
}

// checkDeal recomputes what the dealing node claims, opens and verifies the share, and puts it into the identity.
func (g *genesis) checkDeal(c fsm.Ceremony, p *participant) error {
	if c.Deal == nil || c.Deal.Generation == 0 {
		return fmt.Errorf("%w: no deal is there", ErrShown)
	}
	// After an interruption the transcript that was fixed is no longer known here, and this fixes the one shown now.
	if err := g.fix(c); err != nil {
		return err
	}
	if ceremony.Transcript(c, c.Deal.Commitments) != c.Deal.Transcript {
		return fmt.Errorf("%w: the deal's transcript is not that of the ceremony", ErrShown)
	}
	sealed, err := sealedFor(c, p.Name())
	if err != nil {
		return err
	}
	if err := verifyShare(c, p, sealed); err != nil {
		return err
	}
	return p.StoreShare(ceremony.StoredShare{
		ClusterID: c.Roster.ClusterID, Generation: c.Deal.Generation, Ceremony: c.ID, Roster: fsm.RosterHash(c.Roster), Sealed: sealed,
	})
}

func sealedFor(c fsm.Ceremony, who fsm.CustodianName) ([]byte, error) {
	i := slices.IndexFunc(c.Deal.Shares, func(s fsm.SealedShare) bool { return s.Custodian == who })
	if i < 0 {
		return nil, fmt.Errorf("%w: the deal has no share for %s", ErrShown, who)
	}
	return c.Deal.Shares[i].Ciphertext, nil
}

func verifyShare(c fsm.Ceremony, p *participant, sealed []byte) error {
	share, err := p.OpenShare(sealed, ceremony.Info{ClusterID: c.Roster.ClusterID, Ceremony: c.ID, Custodian: p.Name()})
	if err != nil {
		return err
	}
	defer share.Wipe()
	place, err := ceremony.Place(c.Roster, p.Name())
	if err != nil {
		return err
	}
	if share.Number != place {
		return fmt.Errorf("%w: share %d was dealt to place %d", ErrShown, share.Number, place)
	}
	return share.Verify(c.Deal.Commitments, int(c.Roster.Threshold))
}
