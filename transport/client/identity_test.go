package client_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/client/clienttest"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func TestARefusedClientCertificateIsNoOutage(t *testing.T) {
	ca, foreign := clienttest.NewCA(t, clusterID), clienttest.NewCA(t, clusterID)
	n1, n2 := serve(t, ca, "n1", signs("n1")), serve(t, ca, "n2", signs("n2"))
	for name, c := range map[string]struct {
		certificate tls.Certificate
		says        string
	}{
		"none":    {tls.Certificate{}, "certificate required"},
		"expired": {ca.IssueUntil(t, time.Now().Add(-time.Minute), ca.URI("administrator", "ada")), "expired certificate"},
		"foreign": {foreign.Issue(t, foreign.URI("administrator", "ada")), "unknown certificate authority"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // the refusal used to race with a connection reset
				api := connect(t, ca, func(cfg *client.Config) { cfg.Certificate = c.certificate }, n1.Addr, n2.Addr)
				_, err := api.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
				if kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), n1.Addr) {
					t.Fatalf("%s: %v", kind.Of(err), err)
				}
			}
		})
	}
	if len(n1.received())+len(n2.received()) != 0 {
		t.Error("a request came through")
	}
}

func TestOnlyANodeOfTheClusterIsSpokenTo(t *testing.T) {
	ca, foreign := clienttest.NewCA(t, clusterID), clienttest.NewCA(t, clusterID)
	good := serve(t, ca, "n9", signs("n9"))
	for name, c := range map[string]struct {
		certificate tls.Certificate
		says        string
	}{
		"administrator":   {ca.Issue(t, ca.URI("administrator", "ada")), "that of a administrator, not of a node"},
		"no identity":     {ca.Issue(t), "has 0 URI names"},
		"two identities":  {ca.Issue(t, ca.URI("node", "n1"), ca.URI("node", "n2")), "has 2 URI names"},
		"nested name":     {ca.Issue(t, ca.URI("node", "n1/x")), "is not spiffe://CLUSTER/ROLE/NAME"},
		"other scheme":    {ca.Issue(t, "https://c1/node/n1"), "is not spiffe://CLUSTER/ROLE/NAME"},
		"other cluster":   {ca.Issue(t, "spiffe://c2/node/n1"), `belongs to cluster "c2", not "c1"`},
		"other authority": {foreign.Issue(t, foreign.URI("node", "n1")), "unknown authority"},
		"expired":         {ca.IssueUntil(t, time.Now().Add(-time.Minute), ca.URI("node", "n1")), "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			impostor := serveAs(t, ca, clienttest.Listen(t), c.certificate, signs("impostor"))
			alone := connect(t, ca, nil, impostor.Addr)
			_, err := alone.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
			if kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", kind.Of(err), err)
			}
			if got := signer(t, connect(t, ca, nil, impostor.Addr, good.Addr)); got != "n9" {
				t.Errorf("signed by %s", got)
			}
			if len(impostor.received()) != 0 {
				t.Error("the impostor got a request")
			}
		})
	}
}

func TestThePinnedClusterWins(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	n1 := serve(t, ca, "n1", signs("n1"))
	pinned := connect(t, ca, func(cfg *client.Config) { cfg.ClusterID = "c2" }, n1.Addr)
	if _, err := pinned.Sign(t.Context(), &vaultpb.SignRequest{Name: "k"}); kind.Of(err) != kind.Unauthenticated {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
}

// TestOlderTLSIsNoNode: the error says what is wrong, and the next address is tried.
func TestOlderTLSIsNoNode(t *testing.T) {
	ca := clienttest.NewCA(t, clusterID)
	good := serve(t, ca, "n9", signs("n9"))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, ca.URI("node", "n1"))}, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1)) // the handshake fails
			}()
		}
	}()
	old := l.Addr().String()
	_, err = connect(t, ca, nil, old).Sign(t.Context(), &vaultpb.SignRequest{Name: "k"})
	if kind.Of(err) != kind.Unauthenticated || kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), "does not speak TLS 1.3") {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
	if got := signer(t, connect(t, ca, nil, old, good.Addr)); got != "n9" {
		t.Errorf("signed by %s", got)
	}
}
