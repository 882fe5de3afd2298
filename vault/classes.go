package vault

import (
	"context"
	"fmt"
	"strings"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
	"github.com/conclave-vault/conclave/vault/policy"
)

// Class is a class with how many keys are of it.
type Class struct {
	fsm.Class
	Keys uint64
}

func classIn(s *fsm.State, name string) (Class, error) {
	c, found := s.Class(name)
	if !found {
		return Class{}, fmt.Errorf("%w: there is no class %q", guard.ErrNotFound, name)
	}
	return Class{Class: c, Keys: uint64(s.KeysOf(name))}, nil
}

// Class returns a class. Whoever has a certificate may read what the rules are.
func (v *Vault) Class(ctx context.Context, c policy.Caller, name string) (Class, uint64, error) {
	s, err := v.identified(ctx, c)
	if err != nil {
		return Class{}, 0, err
	}
	class, err := classIn(s, name)
	return class, s.Applied(), err
}

// Classes lists the built-in classes, strictest first, then the custom ones by name. There are few: no pages.
func (v *Vault) Classes(ctx context.Context, c policy.Caller) ([]Class, uint64, error) {
	s, err := v.identified(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	var all []Class
	for _, class := range s.AllClasses() {
		all = append(all, Class{Class: class, Keys: uint64(s.KeysOf(class.Name))})
	}
	return all, s.Applied(), nil
}

// identified is the present state, for whoever is anybody in it.
func (v *Vault) identified(ctx context.Context, c policy.Caller) (*fsm.State, error) {
	s, err := v.current(ctx)
	if err != nil {
		return nil, err
	}
	return s, policy.Identify(s, c)
}

// checkAlgorithms refuses names that no device will ever have: a misspelt one would allow less than its author thinks.
func checkAlgorithms(c fsm.Class) error {
	for _, a := range c.Algorithms {
		if !hsm.Algorithm(a).Known() {
			return fmt.Errorf("%w: unknown algorithm %q; known are %v", ErrInvalid, a, hsm.Algorithms())
		}
	}
	return nil
}

// classHash is over every control: two requests with one id are the same only if they ask for the same class.
func classHash(method string, c fsm.Class, revision uint64) [32]byte {
	c.CreatedAt, c.Revision = fsm.Class{}.CreatedAt, 0
	return requestHash(method, fmt.Sprintf("%+v", c), fmt.Sprint(revision))
}

// CreateClass makes a custom class.
func (v *Vault) CreateClass(ctx context.Context, c policy.Caller, id fsm.RequestID, class fsm.Class) (Class, uint64, error) {
	return v.writeClass(ctx, c, id, classHash("classes.create", class, 0), class, fsm.CreateClass{Class: class})
}

// UpdateClass replaces a custom class. What raises a control is a restriction, and answered when no node goes by the old one.
func (v *Vault) UpdateClass(ctx context.Context, c policy.Caller, id fsm.RequestID, class fsm.Class, revision uint64) (Class, uint64, error) {
	return v.writeClass(ctx, c, id, classHash("classes.update", class, revision), class, fsm.UpdateClass{Class: class, Revision: revision})
}

func (v *Vault) writeClass(ctx context.Context, c policy.Caller, id fsm.RequestID, hash [32]byte, class fsm.Class, cmd fsm.Command) (Class, uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return Class{}, 0, err
	}
	if err := checkAlgorithms(class); err != nil {
		return Class{}, 0, err
	}
	if _, err := v.write(ctx, c, id, hash, cmd); err != nil {
		return Class{}, 0, err
	}
	s := v.state()
	is, err := classIn(s, class.Name)
	return is, s.Applied(), err
}

// DeleteClass removes a custom class that no key is of.
func (v *Vault) DeleteClass(ctx context.Context, c policy.Caller, id fsm.RequestID, name string) (uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return 0, err
	}
	if _, err := v.write(ctx, c, id, requestHash("classes.delete", name), fsm.DeleteClass{Name: name}); err != nil {
		return 0, err
	}
	return v.state().Applied(), nil
}

// maxEffects bounds what a check of a class lists.
const maxEffects = 1000

// CheckClass says what UpdateClass, or SetKeyClass of the named key, would do now. It changes nothing, and promises nothing: by the time of
// the change keys may have been made.
func (v *Vault) CheckClass(ctx context.Context, c policy.Caller, class fsm.Class, key fsm.KeyName) (fsm.ClassCheck, uint64, error) {
	s, err := v.identified(ctx, c)
	if err != nil {
		return fsm.ClassCheck{}, 0, err
	}
	if err := policy.Administer(s, c); err != nil {
		return fsm.ClassCheck{}, 0, err
	}
	name := class.Name
	if key != "" {
		k, found := s.Key(key)
		if !found {
			return fsm.ClassCheck{}, 0, fmt.Errorf("%w: there is no key %q", guard.ErrNotFound, key)
		}
		to, err := classIn(s, class.Name)
		if err != nil {
			return fsm.ClassCheck{}, 0, err
		}
		class, name = to.Class, k.Class
	} else if err := fsm.ValidClass(class); err != nil {
		return fsm.ClassCheck{}, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	was, err := classIn(s, name)
	if err != nil {
		return fsm.ClassCheck{}, 0, err
	}
	return s.CheckClass(class, was.Class, key, v.stamp(ctx), maxEffects), s.Applied(), checkAlgorithms(class)
}

// SetKeyClass moves a key to another class. It is a restriction.
func (v *Vault) SetKeyClass(ctx context.Context, c policy.Caller, id fsm.RequestID, name fsm.KeyName, class, reason string) (fsm.Key, uint64, error) {
	return v.writeKey(ctx, c, id, requestHash("keys.set-class", string(name), class, reason), name, fsm.SetKeyClass{Name: name, Class: class, Reason: reason})
}

// writeKey proposes a change of one key and returns the key after it, when the change is in force.
func (v *Vault) writeKey(ctx context.Context, c policy.Caller, id fsm.RequestID, hash [32]byte, name fsm.KeyName, cmd fsm.Command) (fsm.Key, uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return fsm.Key{}, 0, err
	}
	r, err := v.write(ctx, c, id, hash, cmd)
	if err != nil {
		return fsm.Key{}, 0, err
	}
	if r.Barrier != 0 { // the completion is a later entry: show it as done here too
		if _, err := v.cfg.Replica.WaitFor(ctx, func(s *fsm.State) bool { return s.BarrierDone(r.Barrier) }); err != nil {
			return fsm.Key{}, 0, &PendingError{Index: r.Barrier, Pending: []fsm.NodeID{v.cfg.Node}}
		}
	}
	return v.written(name, r)
}

// UpdateKey changes labels, words, links and planned dates of a key. Taking users away is a restriction.
func (v *Vault) UpdateKey(ctx context.Context, c policy.Caller, id fsm.RequestID, u fsm.UpdateKey) (fsm.Key, uint64, error) {
	if u.Owner != nil && !strings.HasPrefix(string(*u.Owner), "spiffe://") { // a short form: user/bob
		owner := fsm.Actor("spiffe://" + v.clusterID() + "/" + string(*u.Owner))
		u.Owner = &owner
	}
	return v.writeKey(ctx, c, id, updateHash(u), u.Name, u)
}

func updateHash(u fsm.UpdateKey) [32]byte {
	text := func(s *string) string {
		if s == nil {
			return "absent"
		}
		return "=" + *s
	}
	fields := []string{string(u.Name), fmt.Sprint(u.Revision), fmt.Sprint(u.Version), text(u.Description), text(u.Purpose), text((*string)(u.Owner))}
	for _, l := range u.SetLabels {
		fields = append(fields, "set", l.Name, l.Value)
	}
	for _, l := range u.RemoveLabels {
		fields = append(fields, "remove", l)
	}
	for _, l := range u.AddLinks {
		fields = append(fields, "link", string(l.Kind), l.Target)
	}
	for _, l := range u.RemoveLinks {
		fields = append(fields, "unlink", string(l.Kind), l.Target)
	}
	if u.ActivateAt != nil {
		fields = append(fields, "activate", u.ActivateAt.UTC().String())
	}
	if u.DeactivateAt != nil {
		fields = append(fields, "deactivate", u.DeactivateAt.UTC().String())
	}
	if u.NeverExportable {
		fields = append(fields, "never-exportable")
	}
	return requestHash("keys.update", fields...)
}
