package soft

import (
	"context"
	"fmt"

	"github.com/conclave-vault/conclave/hsm"
)

// ImportMaster implements hsm.Token. What is kept on disk follows the import: with persist m replaces what was kept, without it
// nothing stays kept, so that a restart never brings back an older generation. An error leaves the token sealed, unless it is
// ErrInput or ErrClosed, which change nothing.
func (t *Token) ImportMaster(ctx context.Context, m *hsm.Master, persist *hsm.Persistence) error {
	if err := validateMaster(m, persist); err != nil {
		return err
	}
	release, err := t.turns.Administer(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := t.turns.Drain(ctx); err != nil {
		return err
	}
	s, err := openSession(m, t.region)
	if err != nil {
		return err
	}
	if err := t.file.setKept(keepable(m, persist)); err != nil {
		s.Shut()
		return err
	}
	return t.turns.Install(s)
}

func validateMaster(m *hsm.Master, persist *hsm.Persistence) error {
	switch {
	case m == nil || m.ClusterID == "" || len(m.ClusterID) > hsm.MaxClusterID || m.Generation == 0:
		return fmt.Errorf("%w: a master needs a cluster id of at most %d bytes and a generation from 1", hsm.ErrInput, hsm.MaxClusterID)
	case len(m.Wrap) != keySize || len(m.WrapExport) != keySize || len(m.Bind) != keySize:
		return fmt.Errorf("%w: the keys of a master have %d bytes each", hsm.ErrInput, keySize)
	case persist != nil && (persist.ClusterID != m.ClusterID || persist.Generation != m.Generation):
		return fmt.Errorf("%w: the persistence of another master", hsm.ErrInput)
	}
	return nil
}

func keepable(m *hsm.Master, persist *hsm.Persistence) *keptMaster {
	if persist == nil {
		return nil
	}
	return &keptMaster{Persistence: *persist, wrap: m.Wrap, export: m.WrapExport, bind: m.Bind}
}

// RestoreMaster implements hsm.Token.
func (t *Token) RestoreMaster(ctx context.Context) (hsm.Persistence, error) {
	release, err := t.turns.Administer(ctx)
	if err != nil {
		return hsm.Persistence{}, err
	}
	defer release()
	var p hsm.Persistence
	err = t.file.load(func(c *contents) error {
		if c.kept == nil {
			return hsm.ErrNoMaster
		}
		p = c.kept.Persistence
		if err := t.turns.Drain(ctx); err != nil {
			return err
		}
		s, err := openSession(c.kept.master(), t.region)
		if err != nil {
			return err
		}
		return t.turns.Install(s)
	})
	if err != nil {
		return hsm.Persistence{}, err
	}
	return p, nil
}

// master is a view of k; it must not outlive it.
func (k *keptMaster) master() *hsm.Master {
	return &hsm.Master{ClusterID: k.ClusterID, Generation: k.Generation, Wrap: k.wrap, WrapExport: k.export, Bind: k.bind}
}

// Master implements hsm.Token.
func (t *Token) Master() (hsm.MasterInfo, error) {
	s, err := t.turns.Current()
	if err != nil {
		return hsm.MasterInfo{}, err
	}
	if err := s.Begin(); err != nil {
		return hsm.MasterInfo{}, err
	}
	defer s.End()
	return s.info, nil
}

// Seal implements hsm.Token. New work is refused from the first moment, whatever else fails. If ctx ends first the error says so,
// the token stays sealed, and the keys are wiped when the last operation under way ends; another Seal waits for that.
func (t *Token) Seal(ctx context.Context, forget bool) error {
	if !forget {
		return t.turns.Seal(ctx, nil)
	}
	return t.turns.Seal(ctx, func() error { return t.file.setKept(nil) })
}
