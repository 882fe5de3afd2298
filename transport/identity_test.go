package transport_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/pki"
)

// dial makes a client that any gRPC library would make: it writes as soon as its own side of the handshake is done, and knows
// nothing of how this cluster refuses.
func (s *solo) dial(certificates ...tls.Certificate) *grpc.ClientConn {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(s.nodes.Certificate)
	c := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if len(certificates) != 0 {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	must(s.t, err)
	return conn
}

// status calls with a new connection.
func (s *solo) status(certificates ...tls.Certificate) error {
	s.t.Helper()
	conn := s.dial(certificates...)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, err := vaultpb.NewClusterClient(conn).Status(ctx, &vaultpb.StatusRequest{})
	return err
}

// leaf signs a certificate as no cluster would: with any names, use and time.
func leaf(t testing.TB, a *pki.Authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(t, err)
	key, now := newKey(t), time.Now()
	c := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, a.Certificate, key.Public(), a.Key)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	return pair(parsed, key)
}

func uris(t testing.TB, names ...string) func(*x509.Certificate) {
	t.Helper()
	var all []*url.URL
	for _, n := range names {
		u, err := url.Parse(n)
		must(t, err)
		all = append(all, u)
	}
	return func(c *x509.Certificate) { c.URIs = all }
}

// tries of each refusal: what only works most of the time fails in some of them.
const tries = 50

// TestTheHandshakeRefuses: who has no certificate of the client authority that is good now gets no connection, and reads why, every
// time; and each refusal is one line in the node's log.
func TestTheHandshakeRefuses(t *testing.T) {
	now := time.Now()
	admin := func(s *solo) pki.ID { return s.named("administrator", "ada") }
	one := func(c tls.Certificate) []tls.Certificate { return []tls.Certificate{c} }
	for _, c := range []struct {
		name  string
		shows func(s *solo) []tls.Certificate
		says  string
	}{
		{"no certificate", func(*solo) []tls.Certificate { return nil }, "certificate required"},
		{"an empty certificate", func(*solo) []tls.Certificate { return one(tls.Certificate{}) }, "certificate required"},
		{"another authority", func(s *solo) []tls.Certificate {
			stranger := authority(t, s.id, "client") // the same names, another key
			return one(s.issue(stranger, admin(s), time.Hour, now))
		}, "unknown certificate authority"},
		{"the node authority", func(s *solo) []tls.Certificate { return one(s.issue(s.nodes, admin(s), time.Hour, now)) }, "unknown certificate authority"},
		{"a node's own", func(s *solo) []tls.Certificate { return one(s.nodeCertificate("n2")) }, "unknown certificate authority"},
		{"signed by itself", func(s *solo) []tls.Certificate { return one(selfSigned(t, admin(s))) }, "unknown certificate authority"},
		{"expired", func(s *solo) []tls.Certificate { return one(s.issue(s.clients, admin(s), -time.Second, now)) }, "expired certificate"},
		{"not yet valid", func(s *solo) []tls.Certificate {
			return one(s.issue(s.clients, admin(s), time.Hour, now.Add(time.Hour)))
		}, "expired certificate"},
		{"a server's use", func(s *solo) []tls.Certificate {
			return one(leaf(t, s.clients, func(c *x509.Certificate) {
				uris(t, admin(s).String())(c)
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}))
		}, "bad certificate"},
		{"a hundred certificates between", func(s *solo) []tls.Certificate { return one(longChain(t, s, 100)) }, "bad certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSolo(t) // with a log of its own, which says everything of the first refusals only
			certificates := c.shows(s)
			accepted, logged := s.accepted.Load(), s.log.count(refusedLine)
			for i := range tries {
				err := s.status(certificates...)
				if kind.Of(err) != kind.Unauthenticated || kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("try %d: %s: %v", i, kind.Of(err), err)
				}
			}
			s.everyRefusalIsLogged(t, accepted, logged)
			s.serves(t)
		})
	}
}

// selfSigned is somebody's own authority.
func selfSigned(t testing.TB, id pki.ID) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{id.URI()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	return pair(parsed, key)
}

// longChain ends at the client authority after so many authorities that a client made itself: work for whoever verifies it.
func longChain(t testing.TB, s *solo, between int) tls.Certificate {
	t.Helper()
	parent, signer := s.clients.Certificate, s.clients.Key
	var chain [][]byte
	for i := range between {
		key := newKey(t)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			Subject: pkix.Name{CommonName: strconv.Itoa(i)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
		must(t, err)
		parent, err = x509.ParseCertificate(der)
		must(t, err)
		signer, chain = key, append(chain, der)
	}
	end := leaf(t, &pki.Authority{Certificate: parent, Key: signer}, uris(t, s.named("administrator", "ada").String()))
	slices.Reverse(chain)
	end.Certificate = append(end.Certificate, chain...)
	return end
}

// refusedLine begins the line of a refused handshake, and calledLine that of a refused call.
const (
	refusedLine = `"msg":"connection refused","port":"api","purpose":"handshake"`
	calledLine  = `"msg":"connection refused","port":"api","purpose":"/conclave.vault.v1.Cluster/Status"`
)

// everyRefusalIsLogged: as many lines as connections. The node may write the last line a moment after the client has read the alert.
func (s *solo) everyRefusalIsLogged(t *testing.T, accepted int64, logged int) {
	t.Helper()
	want := func() int { return int(s.accepted.Load() - accepted) }
	got := func() int { return s.log.count(refusedLine) - logged }
	for deadline := time.Now().Add(5 * time.Second); got() < want() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got() != want() || want() < tries {
		t.Errorf("%d connections, %d lines", want(), got())
	}
}

// logged: so many lines, and not one more; the node writes its line a moment after it has answered.
func (s *solo) logged(t *testing.T, line string, want int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); s.log.count(line) < want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := s.log.count(line); got != want {
		t.Errorf("%d lines %s, want %d", got, line, want)
	}
}

func (s *solo) nodeCertificate(name string) tls.Certificate {
	s.t.Helper()
	key := newKey(s.t)
	c, err := s.nodes.IssueNode(s.named("node", name), key.Public(), nil, time.Now())
	must(s.t, err)
	return pair(c, key)
}

// serves: the accept loop lives, and who is known is answered.
func (s *solo) serves(t *testing.T) {
	t.Helper()
	known := s.issue(s.clients, s.named("administrator", "grace"), time.Hour, time.Now())
	s.record(known.Leaf, fsm.RoleAdministrator, "grace")
	if err := s.status(known); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

// TestOlderTLSIsRefused: the client reads that it is the version.
func TestOlderTLSIsRefused(t *testing.T) {
	s := newSolo(t)
	known := s.issue(s.clients, s.named("administrator", "ada"), time.Hour, time.Now())
	for i := range tries {
		_, err := tls.Dial("tcp", s.addr, &tls.Config{
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{known}, NextProtos: []string{"h2"},
		})
		if err == nil || !strings.Contains(err.Error(), "protocol version not supported") {
			t.Fatalf("try %d: %v", i, err)
		}
	}
	s.everyRefusalIsLogged(t, 0, 0)
	s.serves(t)
}

// TestTheCallRefuses: the authority signed the certificate, but it is nobody's.
func TestTheCallRefuses(t *testing.T) {
	s := newSolo(t)
	user := s.named("user", "ada").String()
	recorded := s.issue(s.clients, s.named("user", "ada"), time.Hour, time.Now())
	s.record(recorded.Leaf, fsm.RoleAdministrator, "ada")
	calls := 0
	other := s.issue(s.clients, pki.ID{Cluster: "other", Role: "user", Name: "eve"}, time.Hour, time.Now())
	s.record(other.Leaf, fsm.RoleUser, "eve")
	for _, c := range []struct {
		name        string
		certificate tls.Certificate
		says        string
	}{
		{"no name", leaf(t, s.clients, func(*x509.Certificate) {}), "exactly one spiffe:// name"},
		{"two names", leaf(t, s.clients, uris(t, user, s.named("administrator", "ada").String())), "exactly one spiffe:// name"},
		{"another scheme", leaf(t, s.clients, uris(t, "https://"+s.id+"/user/ada")), "exactly one spiffe:// name"},
		{"a long name", leaf(t, s.clients, uris(t, user+"/laptop")), "is not spiffe://CLUSTER/ROLE/NAME"},
		{"never recorded", s.issue(s.clients, s.named("administrator", "ada"), time.Hour, time.Now()), "is not recorded in this cluster"},
		{"recorded for another role", recorded, "was issued to somebody else"},
		{"of another cluster", other, "was issued to somebody else"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.status(c.certificate)
			if kind.Of(err) != kind.Unauthenticated || kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", kind.Of(err), err)
			}
			calls++
			s.logged(t, calledLine, calls)
		})
	}
	if n := s.log.count(refusedLine); n != 0 {
		t.Errorf("%d connections were refused; these are refused by the call", n)
	}
	s.serves(t)
}

// TestRevokingEndsAnOpenConnection: what the handshake checked is asked again at every call.
func TestRevokingEndsAnOpenConnection(t *testing.T) {
	s := newSolo(t)
	known := s.issue(s.clients, s.named("user", "ada"), time.Hour, time.Now())
	s.record(known.Leaf, fsm.RoleUser, "ada")
	conn := s.dial(known)
	defer conn.Close()
	api := vaultpb.NewClusterClient(conn)
	if _, err := api.Status(t.Context(), &vaultpb.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	s.revoke(t, fsm.RoleUser, "ada")
	_, err := api.Status(t.Context(), &vaultpb.StatusRequest{})
	if kind.Of(err) != kind.Unauthenticated || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
}

// revoke takes a role away.
func (s *solo) revoke(t *testing.T, role fsm.Role, name string) {
	t.Helper()
	e, err := fsm.EncodeEntry(fsm.Entry{
		Actor: fsm.Actor("spiffe://" + s.id + "/administrator/root"), RequestID: fsm.RequestID(uuid.Must(uuid.NewV7()).String()),
		Command: fsm.RevokeCertificates{Role: role, Name: name, Reason: "left"},
	}.Stamped(time.Now()))
	must(t, err)
	s.apply(e)
}

// TestAnUnknownMethodIsUnsupported: a client of a newer release learns that this one does not know the call.
func TestAnUnknownMethodIsUnsupported(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.issue(s.clients, s.named("user", "ada"), time.Hour, time.Now()))
	defer conn.Close()
	err := conn.Invoke(t.Context(), "/conclave.vault.v1.Cluster/Teleport", &vaultpb.StatusRequest{}, &vaultpb.StatusReply{})
	if kind.Of(err) != kind.Unsupported {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
}
