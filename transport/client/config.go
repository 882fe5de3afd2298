package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"
)

// Defaults and limits of Config.
const (
	DefaultTimeout = 30 * time.Second
	// DefaultAttemptTimeout is longer than the 3.7 s after which the lease of an unreachable node has run out, so that a
	// restriction that must wait for one is normally answered in a single attempt.
	DefaultAttemptTimeout = 5 * time.Second
	// maxAddresses bounds the connections of one client; clusters have a handful of nodes.
	maxAddresses = 64
)

// ErrConfig: a Config cannot be used. The error that wraps it says which field and why.
var ErrConfig = errors.New("client: configuration")

// Config says where the cluster is and who the caller is.
type Config struct {
	// Addresses are host:port of nodes, in the order in which they are tried. At least one, at most 64.
	Addresses []string
	// CACert holds the PEM certificates that a node's certificate must chain to. Required: system roots are never used,
	// because only the cluster's own CA says who is a node.
	CACert []byte
	// Certificate is the caller's certificate with its private key. Without one every node refuses the connection.
	Certificate tls.Certificate
	// ClusterID, if set, is the only cluster whose nodes are spoken to. Empty: the cluster that Certificate names, if it does.
	ClusterID string
	// Discover adds the addresses that the cluster itself lists, after the given ones, once a first call has succeeded.
	Discover bool
	// Timeout bounds calls whose context has no deadline, all retries included. 0: DefaultTimeout.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt on one node when there is another node to go to. 0: DefaultAttemptTimeout.
	AttemptTimeout time.Duration
	// Token is an index that another client has seen (Client.Token): every call is answered from a state that has applied it.
	Token uint64
	// NoSession turns session consistency off. On, a call demands the highest index that the client has seen, so that it reads its
	// own writes, and never goes back in time, on whatever node answers. Off, only Token and WithToken are demanded.
	NoSession bool
	// Logger gets a debug line for each node that is passed over. nil: silent.
	Logger *slog.Logger
}

// LogValue keeps the private key out of logs.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("addresses", c.Addresses), slog.String("cluster", c.ClusterID))
}

// String keeps the private key out of messages.
func (c Config) String() string { return fmt.Sprintf("client of %v", c.Addresses) }

// GoString is String.
func (c Config) GoString() string { return c.String() }

// LoadFiles fills CACert and Certificate from PEM files. certFile and keyFile may both be empty: then the caller has no
// certificate, and learns from the node that it needs one.
func (c *Config) LoadFiles(caFile, certFile, keyFile string) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("%w: CA certificate: %w", ErrConfig, err)
	}
	c.CACert = ca
	if certFile == "" && keyFile == "" {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("%w: client certificate: %w", ErrConfig, err)
	}
	c.Certificate = pair
	return nil
}

func (c Config) withDefaults() Config {
	c.Addresses = slices.Clone(c.Addresses)
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = DefaultAttemptTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) validate() error {
	if n := len(c.Addresses); n == 0 || n > maxAddresses {
		return fmt.Errorf("%w: %d addresses, 1 to %d are needed", ErrConfig, n, maxAddresses)
	}
	for _, a := range c.Addresses {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	if c.Timeout < 0 || c.AttemptTimeout < 0 {
		return fmt.Errorf("%w: a timeout is negative", ErrConfig)
	}
	return nil
}

func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("%w: address %q is not host:port", ErrConfig, a)
	}
	return nil
}

func (c Config) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CACert) {
		return nil, fmt.Errorf("%w: the CA certificate file holds no PEM certificate", ErrConfig)
	}
	return pool, nil
}
