package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/vault/pki"
)

// A certificate warns when less than a third of its life is left, and not before its last thirty days: a third of a node's five
// years is long before anybody plans, and thirty days are more than some clients' certificates ever have.
const (
	warnLife = 30 * 24 * time.Hour
	warnPart = 3
)

// validity says what a certificate's dates are worth now.
func validity(cert *x509.Certificate, now time.Time) (Status, string) {
	left, life := cert.NotAfter.Sub(now), cert.NotAfter.Sub(cert.NotBefore)
	switch {
	case now.Before(cert.NotBefore):
		return Fail, fmt.Sprintf("not valid before %s", stamp(cert.NotBefore))
	case left <= 0:
		return Fail, fmt.Sprintf("expired at %s", stamp(cert.NotAfter))
	case left < min(warnLife, life/warnPart):
		return Warn, fmt.Sprintf("valid until %s, %s more", stamp(cert.NotAfter), days(left))
	}
	return OK, fmt.Sprintf("valid until %s", stamp(cert.NotAfter))
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// nodeCertificate checks what join or init wrote. Whether its key is the token's is a matter of the check of the HSM.
func (c *checkup) nodeCertificate() Result {
	const name = "node certificate"
	if c.member == nil {
		if errors.Is(c.notMember, node.ErrNoCluster) {
			return absent(name, "this node belongs to no cluster yet")
		}
		return fail(name, c.notMember.Error(),
			"run this as the user who runs the server; if the file is damaged, remove the node from the cluster and join it anew")
	}
	const rejoin = "correct the clock if it is wrong; else remove the node from the cluster and join it anew, with an empty data directory"
	cert, err := x509.ParseCertificate(c.member.Certificate)
	if err != nil {
		return fail(name, err.Error(), rejoin)
	}
	id, err := pki.ParseID(cert)
	want := pki.ID{Cluster: c.member.ClusterID, Role: "node", Name: c.cfg.Node}
	switch {
	case err != nil:
		return fail(name, err.Error(), rejoin)
	case id != want:
		return fail(name, fmt.Sprintf("it is that of %s and this node is %s", id, want),
			"correct node: in the configuration, or data_dir: it is another node's")
	}
	status, dates := validity(cert, c.now())
	if status == Fail {
		return fail(name, dates, rejoin)
	}
	if err := c.chain(cert); err != nil {
		return fail(name, err.Error(), rejoin)
	}
	if status == Warn {
		return warn(name, id.String()+", "+dates,
			"before then: remove the node from the cluster and join it anew, with an empty data directory, one node at a time")
	}
	return good(name, "%s, %s", id, dates)
}

func (c *checkup) chain(cert *x509.Certificate) error {
	roots, err := rootsOf(c.member.NodeCA)
	if err != nil {
		return fmt.Errorf("the authority of the nodes: %w", err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: c.now(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return err
		}
	}
	return nil
}

// Credentials are the caller's, as flags and environment name them.
type Credentials struct {
	Addresses []string
	CA        string // file
	Cert, Key string // files
}

func (c Credentials) given() bool {
	return len(c.Addresses) > 0 || c.CA != "" || c.Cert != "" || c.Key != ""
}

// missing names the variables whose values are not there; empty if all are.
func (c Credentials) missing() string {
	var names []string
	for _, v := range []struct {
		name string
		set  bool
	}{
		{"CONCLAVE_ADDR", len(c.Addresses) > 0}, {"CONCLAVE_CACERT", c.CA != ""}, {"CONCLAVE_CERT", c.Cert != ""}, {"CONCLAVE_KEY", c.Key != ""},
	} {
		if !v.set {
			names = append(names, v.name)
		}
	}
	return strings.Join(names, ", ")
}

// clientCredentials checks what the caller of this program calls the cluster with.
func (c *checkup) clientCredentials() []Result {
	const name = "client credentials"
	if !c.caller.given() {
		return []Result{absent(name, "none of CONCLAVE_ADDR, CONCLAVE_CACERT, CONCLAVE_CERT, CONCLAVE_KEY is set: this host is no client")}
	}
	if missing := c.caller.missing(); missing != "" {
		return []Result{fail(name, missing+" not set, and others of the four are",
			"export "+missing+"; conclave init and conclave pki issue name the values")}
	}
	for _, path := range []string{c.caller.CA, c.caller.Cert, c.caller.Key} {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // reading a pipe would wait for a writer
			c.unusable = true
			return []Result{fail(name, path+" is no regular file", "name the file that conclave init or conclave pki issue wrote")}
		}
	}
	return []Result{c.clientAuthority(), c.clientCertificate(), c.clientKey()}
}

func (c *checkup) clientAuthority() Result {
	const name = "client CA"
	advice := "export CONCLAVE_CACERT with the ca.crt of conclave init or conclave pki issue"
	text, err := os.ReadFile(c.caller.CA)
	if err != nil {
		return fail(name, err.Error(), advice)
	}
	ca, err := firstCertificate(text)
	if err != nil {
		return fail(name, c.caller.CA+": "+err.Error(), advice)
	}
	status, dates := validity(ca, c.now())
	switch {
	case status == Fail:
		return fail(name, c.caller.CA+": "+dates, advice+"; and see that the clock is right")
	case c.member != nil && string(ca.Raw) != string(c.member.NodeCA):
		return warn(name, c.caller.CA+" is another cluster's authority than this node's",
			"if the credentials are meant for this node's cluster: "+advice)
	}
	return good(name, "%s, %s", c.caller.CA, dates)
}

func (c *checkup) clientCertificate() Result {
	const name = "client certificate"
	advice := "an administrator issues another: conclave pki issue --role ROLE --name HOLDER --out DIR"
	text, err := os.ReadFile(c.caller.Cert)
	if err != nil {
		return fail(name, err.Error(), advice)
	}
	cert, err := firstCertificate(text)
	if err != nil {
		return fail(name, c.caller.Cert+": "+err.Error(), advice)
	}
	id, err := pki.ParseID(cert)
	if err != nil {
		return fail(name, c.caller.Cert+": "+err.Error(), advice)
	}
	advice = fmt.Sprintf("an administrator issues another: conclave pki issue --role %s --name %s --out DIR", id.Role, id.Name)
	status, dates := validity(cert, c.now())
	switch {
	case status == Fail:
		return fail(name, fmt.Sprintf("%s (%s): %s", c.caller.Cert, id, dates), advice+"; and see that the clock is right")
	case status == Warn:
		return warn(name, fmt.Sprintf("%s (%s): %s", c.caller.Cert, id, dates), advice)
	}
	return good(name, "%s, %s", id, dates)
}

func (c *checkup) clientKey() Result {
	const name = "client key"
	path := c.caller.Key
	info, err := os.Stat(path)
	if err != nil {
		return fail(name, err.Error(), "export CONCLAVE_KEY with the file that conclave pki issue wrote beside the certificate")
	}
	if mode := info.Mode().Perm(); mode&permGroupRest != 0 {
		return fail(name, fmt.Sprintf("%s has mode %04o: others may read it, and are then this caller", path, mode),
			"chmod 600 "+path+", and revoke the certificate if somebody may have read it")
	}
	if _, err := tls.LoadX509KeyPair(c.caller.Cert, path); err != nil {
		return fail(name, fmt.Sprintf("%s is not the key of %s: %v", path, c.caller.Cert, err), "name the two files that were written together")
	}
	return good(name, "%s, the certificate's", path)
}
