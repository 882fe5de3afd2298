package clienttest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Server is a gRPC server on loopback.
type Server struct {
	Addr string
	stop func()
}

// Listen picks a free loopback port.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening: %v", err)
	}
	return l
}

// Serve serves on l with certificate, demanding a client certificate of ca, until Stop or the end of the test.
func (ca *CA) Serve(t testing.TB, l net.Listener, certificate tls.Certificate, register func(grpc.ServiceRegistrar), opts ...grpc.ServerOption) *Server {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	creds := credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	server := grpc.NewServer(append(opts, grpc.Creds(creds))...)
	register(server)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(l); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	s := &Server{Addr: l.Addr().String(), stop: sync.OnceFunc(func() { server.Stop(); done.Wait() })}
	t.Cleanup(s.Stop)
	return s
}

// Stop ends the server and its connections at once, as a killed process would.
func (s *Server) Stop() { s.stop() }
