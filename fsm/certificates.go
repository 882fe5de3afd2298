package fsm

import (
	"slices"
	"time"
)

func certificateSubject(serial string) string { return "certificate/" + serial }

// valid is at a log time.
func (c Certificate) valid(at time.Time) bool {
	return c.RevokedAt == 0 && !at.Before(c.NotBefore) && !at.After(c.NotAfter)
}

func (x *execution) recordCertificate(c RecordCertificate) error {
	if err := x.checkCertificate(c.Certificate); err != nil {
		return err
	}
	if x.certificates.Len() >= MaxCertificates && !x.forgetExpiredCertificates() {
		return refuse(CodeLimit, "%d certificates are valid or will be, which is the limit", MaxCertificates)
	}
	x.addCertificate(c.Certificate)
	return nil
}

// forgetExpiredCertificates makes room. A certificate that is not recorded is nobody's, and an expired one already is; the
// log keeps that it was issued. It runs only at the limit, because a look at all of them costs more than an entry should.
func (x *execution) forgetExpiredCertificates() bool {
	before := x.certificates.Len()
	for _, c := range x.certificates.Values() {
		if c.NotAfter.Before(x.now) {
			x.certificates.Delete(c.Serial)
		}
	}
	return x.certificates.Len() < before
}

func (x *execution) checkCertificate(c Certificate) error {
	if !isLowerHex(c.Serial) || len(c.Serial) > maxSerial {
		return invalid("serial %q is no lower-case hex of at most %d digits", clip(c.Serial), maxSerial)
	}
	if c.Role != RoleAdministrator && c.Role != RoleUser {
		return invalid("role %q is neither %s nor %s", clip(string(c.Role)), RoleAdministrator, RoleUser)
	}
	if err := ValidPersonName(c.Name); err != nil {
		return err
	}
	if !c.NotAfter.After(c.NotBefore) || !c.NotAfter.After(x.now) || c.NotAfter.After(x.now.Add(MaxCertificateLife)) {
		return invalid("a certificate from %s to %s does not end within 398 days of now, %s", stamp(c.NotBefore), stamp(c.NotAfter), stamp(x.now))
	}
	if _, taken := x.certificates.Get(c.Serial); taken {
		return refuse(CodeExists, "certificate %s is recorded already", c.Serial)
	}
	return nil
}

func (x *execution) addCertificate(c Certificate) {
	c.IssuedAt, c.RevokedAt, c.Reason = x.index, 0, ""
	x.certificates.Set(c.Serial, &c)
	x.emit(Event{
		Action: "certificate.issue", Subject: certificateSubject(c.Serial), SubjectID: c.Serial, To: "valid",
		Detail: "role=" + string(c.Role) + " name=" + c.Name + " not_after=" + stamp(c.NotAfter),
	})
}

// revokeCertificates takes a role away. Certificates that are revoked already stay as they are; if nothing else is left to
// do, the result names the barrier of the revocation that did it, so that whoever asks again waits for it too.
func (x *execution) revokeCertificates(c RevokeCertificates) error {
	named, err := x.namedCertificates(c)
	if err != nil {
		return err
	}
	good := slices.DeleteFunc(slices.Clone(named), func(c Certificate) bool { return c.RevokedAt != 0 })
	if len(good) == 0 {
		for _, cert := range named {
			x.result.Barrier = max(x.result.Barrier, cert.RevokedAt)
		}
		return nil
	}
	if err := x.keepAdministrator(good); err != nil {
		return err
	}
	if err := x.roomForBarrier(); err != nil {
		return err
	}
	x.restrict(certificateSubject(good[0].Serial))
	for _, cert := range good {
		cert.RevokedAt, cert.Reason = x.index, c.Reason
		x.certificates.Set(cert.Serial, &cert)
		x.emit(Event{
			Action: "certificate.revoke", Subject: certificateSubject(cert.Serial), SubjectID: cert.Serial, From: "valid", To: "revoked",
			Reason: c.Reason, Detail: "role=" + string(cert.Role) + " name=" + cert.Name,
		})
	}
	return nil
}

func (x *execution) namedCertificates(c RevokeCertificates) ([]Certificate, error) {
	if err := ValidReason(c.Reason); err != nil {
		return nil, err
	}
	if c.Serial == "" && (c.Role == "" || c.Name == "") {
		return nil, invalid("certificates are named by role and name, or by serial")
	}
	var named []Certificate
	for _, cert := range x.certificates.Values() {
		if (c.Serial == "" || cert.Serial == c.Serial) && (c.Role == "" || cert.Role == c.Role) && (c.Name == "" || cert.Name == c.Name) {
			named = append(named, *cert)
		}
	}
	if len(named) == 0 {
		return nil, refuse(CodeNotFound, "no certificate of role %q, name %q, serial %q", clip(string(c.Role)), clip(c.Name), clip(c.Serial))
	}
	return named, nil
}

// keepAdministrator: without one valid administrator nobody could ever issue another.
func (x *execution) keepAdministrator(revoked []Certificate) error {
	lost := 0
	for _, c := range revoked {
		if c.Role == RoleAdministrator && c.valid(x.now) {
			lost++
		}
	}
	if lost == 0 {
		return nil
	}
	for _, c := range x.certificates.Values() {
		if c.Role == RoleAdministrator && c.valid(x.now) {
			lost--
		}
	}
	if lost >= 0 {
		return refuse(CodeDenied, "this would leave no valid administrator: issue another certificate first (conclave pki issue)")
	}
	return nil
}
