package policy

import (
	"errors"
	"fmt"

	"github.com/conclave-vault/conclave/fsm"
)

var (
	// ErrUnauthenticated: the certificate is not one that the cluster issued and still honours.
	ErrUnauthenticated = errors.New("the certificate is not accepted")
	// ErrDenied: the caller is known and may not. One text for "absent" and "forbidden", so that a stranger learns nothing.
	ErrDenied = errors.New("not permitted, or there is no such object")
)

// Caller is the verified identity of a client: the names in its certificate.
type Caller struct {
	Cluster string   `json:"cluster"`
	Role    fsm.Role `json:"role"`
	Name    string   `json:"name"`
	Serial  string   `json:"serial"`
}

// Actor is the caller's name in the lifecycle log.
func (c Caller) Actor() fsm.Actor {
	return fsm.Actor("spiffe://" + c.Cluster + "/" + string(c.Role) + "/" + c.Name)
}

// Identify checks that the certificate behind the caller is recorded and not revoked.
func Identify(s *fsm.State, c Caller) error {
	rec, known := s.Certificate(c.Serial)
	switch {
	case !known:
		return fmt.Errorf("%w: serial %s is not recorded in this cluster; issue one with: conclave pki issue", ErrUnauthenticated, c.Serial)
	case rec.RevokedAt != 0:
		return fmt.Errorf("%w: serial %s was revoked at index %d", ErrUnauthenticated, c.Serial, rec.RevokedAt)
	case rec.Role != c.Role || rec.Name != c.Name || s.Cluster().ID != c.Cluster:
		return fmt.Errorf("%w: serial %s was issued to somebody else", ErrUnauthenticated, c.Serial)
	}
	return nil
}

// Administer allows what changes or shows the whole cluster.
func Administer(s *fsm.State, c Caller) error {
	if err := Identify(s, c); err != nil {
		return err
	}
	if c.Role != fsm.RoleAdministrator {
		return fmt.Errorf("%w: this needs the role %s", ErrDenied, fsm.RoleAdministrator)
	}
	return nil
}

// Use allows using and reading key k; with found=false it answers for a key that is not there, which only an administrator
// may learn.
func Use(s *fsm.State, c Caller, k fsm.Key, found bool) error {
	if err := Identify(s, c); err != nil {
		return err
	}
	if c.Role == fsm.RoleAdministrator || (found && c.Role == fsm.RoleUser && k.MayUse(c.Name)) {
		return nil
	}
	return ErrDenied
}
