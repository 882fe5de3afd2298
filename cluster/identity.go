package cluster

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

const (
	uriScheme    = "spiffe"
	nodePath     = "/node/"
	maxNodeBytes = 63 // one DNS label, so that an id fits wherever a host name does
)

// NodeURI is a node's identity in its certificate: spiffe://CLUSTER/node/ID, as its only URI.
func NodeURI(clusterID string, id NodeID) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: clusterID, Path: nodePath + string(id)}
}

// PeerID returns the node that a verified certificate names. The error is ErrPeer unless the certificate has exactly one URI
// and that is a node's of this cluster: a client's certificate, of the same CA or not, is none.
func PeerID(cert *x509.Certificate, clusterID string) (NodeID, error) {
	cluster, id, err := nodeIdentity(cert)
	if err != nil {
		return "", err
	}
	if cluster != clusterID {
		return "", fmt.Errorf("%w: certificate is of another cluster", ErrPeer)
	}
	return id, nil
}

// nodeIdentity reads cluster and node from a certificate.
func nodeIdentity(cert *x509.Certificate) (string, NodeID, error) {
	// Exactly one: with several, two checks could pick two different ones.
	if len(cert.URIs) != 1 {
		return "", "", fmt.Errorf("%w: certificate has %d URIs, want 1", ErrPeer, len(cert.URIs))
	}
	u := cert.URIs[0]
	name, isNode := strings.CutPrefix(u.Path, nodePath)
	id := NodeID(name)
	// The text must be the canonical one: no user, port, query or escape can hide a second reading.
	if !isNode || !validNodeID(id) || u.String() != NodeURI(u.Host, id).String() {
		return "", "", fmt.Errorf("%w: certificate's URI is not a node's", ErrPeer)
	}
	return u.Host, id, nil
}

// validNodeID reports whether id consists of 1 to 63 of [a-z0-9-.] and may stand in URIs, file names and addresses as it is.
func validNodeID(id NodeID) bool {
	if len(id) == 0 || len(id) > maxNodeBytes {
		return false
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}
