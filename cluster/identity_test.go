package cluster_test

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/cluster"
)

func TestNodeURI(t *testing.T) {
	if got := cluster.NodeURI("blue", "n1").String(); got != "spiffe://blue/node/n1" {
		t.Error(got)
	}
	id, err := cluster.PeerID(&x509.Certificate{URIs: []*url.URL{cluster.NodeURI("blue", "n1")}}, "blue")
	if id != "n1" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

// TestPeerIDHasOneReading: a URI that is taken for a node's is the canonical one of that node, to the letter.
func TestPeerIDHasOneReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`(spiffe|http)://([a-z]@)?(blue|red)(:1)?/(node|user)/[a-zA-Z0-9.%/?#_-]{0,6}`).Draw(t, "uri")
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		id, err := cluster.PeerID(&x509.Certificate{URIs: []*url.URL{u}}, "blue")
		// An empty fragment is the one thing that url.Parse, and so package x509, leaves no trace of.
		if err == nil && strings.TrimSuffix(text, "#") != cluster.NodeURI("blue", id).String() {
			t.Fatalf("%q was read as node %q", text, id)
		}
		if err != nil && !errors.Is(err, cluster.ErrPeer) {
			t.Fatal(err)
		}
	})
}
