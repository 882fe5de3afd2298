package vault

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/pki"
	"github.com/conclave-vault/conclave/vault/policy"
)

// IssueCertificate signs a client's certificate for a role and name. The private key stays with whoever made the request. The
// certificate is recorded before it is released; the serial follows from the request, so a repeat is the same record.
func (v *Vault) IssueCertificate(ctx context.Context, c policy.Caller, id fsm.RequestID, role fsm.Role, name string, csr []byte, life time.Duration) (*x509.Certificate, fsm.Certificate, uint64, error) {
	none := func(err error) (*x509.Certificate, fsm.Certificate, uint64, error) {
		return nil, fsm.Certificate{}, 0, err
	}
	s, err := v.current(ctx)
	if err != nil {
		return none(err)
	}
	if err := policy.Administer(s, c); err != nil {
		return none(err)
	}
	r, life, err := checkIssue(role, name, csr, life)
	if err != nil {
		return none(err)
	}
	var cert *x509.Certificate
	err = v.clientAuthority(s, func(ca *pki.Authority, now time.Time) (err error) {
		cert, err = ca.IssueClient(pki.ID{Cluster: s.Cluster().ID, Role: string(role), Name: name}, r.PublicKey, serialFor(id, csr), life, now)
		return err
	})
	if err != nil {
		return none(err)
	}
	rec := record(cert, role, name)
	written, err := v.write(ctx, c, id, requestHash("pki.issue", string(role), name, string(csr), life.String()), fsm.RecordCertificate{Certificate: rec})
	if err != nil {
		return none(err)
	}
	rec.IssuedAt = written.Index
	return cert, rec, written.Index, nil
}

func serialFor(id fsm.RequestID, csr []byte) [16]byte {
	h := sha256.Sum256(append([]byte("conclave/v1/serial/"+string(id)+"/"), csr...))
	return [16]byte(h[:16])
}

func checkIssue(role fsm.Role, name string, csr []byte, life time.Duration) (*x509.CertificateRequest, time.Duration, error) {
	if role != fsm.RoleAdministrator && role != fsm.RoleUser {
		return nil, 0, fmt.Errorf("%w: role %q; use %s or %s (a node gets its certificate by joining)", ErrInvalid, role, fsm.RoleAdministrator, fsm.RoleUser)
	}
	if err := fsm.ValidPersonName(name); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if life = orDefault(life, pki.DefaultClientLife); life < time.Minute || life > pki.MaxClientLife {
		return nil, 0, fmt.Errorf("%w: a certificate for %s; use one minute to %s", ErrInvalid, life, pki.MaxClientLife)
	}
	r, err := pki.ParseRequest(csr)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r, life, nil
}

// RevokeCertificates takes a role away, or one certificate of it. It is a restriction.
func (v *Vault) RevokeCertificates(ctx context.Context, c policy.Caller, id fsm.RequestID, cmd fsm.RevokeCertificates) (uint64, error) {
	if err := v.administer(ctx, c); err != nil {
		return 0, err
	}
	r, err := v.write(ctx, c, id, requestHash("pki.revoke", string(cmd.Role), cmd.Name, cmd.Serial, cmd.Reason), cmd)
	return r.Index, err
}

// CertificatePage is a page of the recorded certificates.
type CertificatePage struct {
	Certificates []fsm.Certificate
	Next         string
	Index        uint64
}

// Certificates lists by serial.
func (v *Vault) Certificates(ctx context.Context, c policy.Caller, after string, size int) (CertificatePage, error) {
	size, err := pageSize(size)
	if err != nil {
		return CertificatePage{}, err
	}
	s, err := v.current(ctx)
	if err != nil {
		return CertificatePage{}, err
	}
	if err := policy.Administer(s, c); err != nil {
		return CertificatePage{}, err
	}
	page := CertificatePage{Certificates: s.Certificates(after, size+1), Index: s.Applied()}
	if len(page.Certificates) > size {
		page.Certificates = page.Certificates[:size]
		page.Next = page.Certificates[size-1].Serial
	}
	return page, nil
}

// NodeCA is the DER of the authority that clients verify nodes with.
func (v *Vault) NodeCA() []byte { return v.state().Cluster().NodeCA }
