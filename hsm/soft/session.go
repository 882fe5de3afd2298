package soft

import (
	"fmt"
	"reflect"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/internal/drain"
	"github.com/conclave-vault/conclave/hsm/keywrap"
)

// session is a master session: the three keys of one generation, and every working copy opened under them. Counting and draining are
// those of every backend.
type session struct {
	hsm.Redacted
	*drain.Session
	info               hsm.MasterInfo
	region             *region
	wrap, export, bind []byte // slots of the region
}

// sealedSession stands for "no master": it refuses everything.
func sealedSession() *session { return &session{Session: drain.Sealed()} }

// openSession copies the keys of m and verifies the copies by a known answer.
func openSession(m *hsm.Master, r *region) (*session, error) {
	return erased(func() (*session, error) { return newSession(m, r) })
}

func newSession(m *hsm.Master, r *region) (*session, error) {
	want, err := m.Check()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", hsm.ErrInput, err) // %v: one sentinel only
	}
	s := &session{info: hsm.MasterInfo{ClusterID: m.ClusterID, Generation: m.Generation, Check: want}, region: r}
	s.Session = drain.NewSession(s.wipe)
	for _, k := range []struct {
		slot *[]byte
		from []byte
	}{{&s.wrap, m.Wrap}, {&s.export, m.WrapExport}, {&s.bind, m.Bind}} {
		*k.slot = r.hold(k.from)
	}
	got, err := (&hsm.Master{Wrap: s.wrap, WrapExport: s.export, Bind: s.bind}).Check()
	if err != nil || !reflect.DeepEqual(got, want) {
		s.Shut()
		return nil, fmt.Errorf("%w: the imported master answers wrongly", hsm.ErrTokenDamaged)
	}
	return s, nil
}

// wipe gives the masters back; their copies are wiped by now.
func (s *session) wipe() {
	s.region.give(s.wrap)
	s.region.give(s.export)
	s.region.give(s.bind)
	s.wrap, s.export, s.bind = nil, nil, nil
}

func (s *session) kek(exportable bool) []byte {
	if exportable {
		return s.export
	}
	return s.wrap
}

// wrapKey wraps material and binds it to b. The session must not end meanwhile: the caller is counted in.
func (s *session) wrapKey(b hsm.Binding, material []byte) (hsm.WrappedKey, error) {
	blob, err := keywrap.Wrap(s.kek(b.Exportable), material)
	if err != nil {
		return hsm.WrappedKey{}, fmt.Errorf("wrapping a key: %w", err)
	}
	return hsm.WrappedKey{Binding: b, Blob: blob, MAC: hsm.BindingMAC(s.bind, b, blob)}, nil
}

// unwrapKey checks everything that can be checked before the blob is touched, then unwraps it. The caller wipes the material, and
// is counted in.
func (s *session) unwrapKey(k hsm.WrappedKey) ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	// Before the MAC: each generation has a bind key of its own, so the MAC of another one cannot be checked at all. The claim is
	// believed only to refuse.
	if k.Binding.Generation != s.info.Generation {
		return nil, fmt.Errorf("%w: %d, open is %d", hsm.ErrGeneration, k.Binding.Generation, s.info.Generation)
	}
	if err := hsm.CheckBinding(s.bind, k); err != nil {
		return nil, err
	}
	if k.Binding.ClusterID != s.info.ClusterID {
		return nil, fmt.Errorf("%w: of another cluster", hsm.ErrWrappedKey)
	}
	material, err := keywrap.Unwrap(s.kek(k.Binding.Exportable), k.Blob)
	if err != nil {
		return nil, fmt.Errorf("%w: its blob", hsm.ErrWrappedKey)
	}
	return material, nil
}
