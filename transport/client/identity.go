package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// errNotANode: the server's certificate is not that of a node of the expected cluster.
var errNotANode = errors.New("the server's certificate is refused")

// tlsConfig makes the client half of mutual TLS 1.3. The host name is not checked, deliberately: a node's name is the URI SAN
// spiffe://CLUSTER/node/NAME, the cluster's CA signs it for nothing else, and nodes move between addresses and stand behind
// forwarded ports. InsecureSkipVerify only turns off the check that we replace: verifyNode does the chain, the validity, the usage
// and the role.
func (c Config) tlsConfig() (*tls.Config, error) {
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	cluster := c.ClusterID
	if cluster == "" {
		cluster = clusterOf(c.Certificate)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyNode(s.PeerCertificates, roots, cluster) },
		// Always our certificate, even when the node names other CAs: then it can say what it does not like about it,
		// instead of reporting that none came.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificate, nil },
	}, nil
}

// verifyNode accepts a chain to roots whose leaf is a server certificate of exactly one identity, that of a node; of cluster,
// unless that is empty.
func verifyNode(chain []*x509.Certificate, roots *x509.CertPool, cluster string) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it sent none", errNotANode)
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotANode, err)
	}
	id, err := parseIdentity(chain[0])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNotANode, err)
	case id.role != "node":
		return fmt.Errorf("%w: it is that of a %s, not of a node", errNotANode, id.role)
	case cluster != "" && id.cluster != cluster:
		return fmt.Errorf("%w: it belongs to cluster %q, not %q", errNotANode, id.cluster, cluster)
	}
	return nil
}

type identity struct{ cluster, role, name string }

// parseIdentity reads spiffe://CLUSTER/ROLE/NAME. Exactly one URI: with two, each side might believe another one.
func parseIdentity(c *x509.Certificate) (identity, error) {
	if len(c.URIs) != 1 {
		return identity{}, fmt.Errorf("it has %d URI names, exactly one is needed", len(c.URIs))
	}
	return splitIdentity(c.URIs[0])
}

func splitIdentity(u *url.URL) (identity, error) {
	role, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if u.Scheme != "spiffe" || u.Host == "" || !ok || role == "" || name == "" || strings.Contains(name, "/") {
		return identity{}, fmt.Errorf("its name %q is not spiffe://CLUSTER/ROLE/NAME", u)
	}
	return identity{u.Host, role, name}, nil
}

// clusterOf is the cluster that the caller's certificate names; empty if there is none.
func clusterOf(pair tls.Certificate) string {
	if len(pair.Certificate) == 0 {
		return ""
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return ""
	}
	id, err := parseIdentity(leaf)
	if err != nil {
		return ""
	}
	return id.cluster
}
