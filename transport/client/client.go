package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ErrClosed: the client was closed.
var ErrClosed = errors.New("client: closed")

// The generated clients run over Client.Invoke, so each of their methods has failover and request ids.
type (
	keys       = vaultpb.KeysClient
	classes    = vaultpb.ClassesClient
	crypto     = vaultpb.CryptoClient
	cluster    = vaultpb.ClusterClient
	log        = vaultpb.LogClient
	ceremonies = vaultpb.CeremoniesClient
)

// Client speaks to a cluster. It has every method of the services Keys, Classes, Crypto, Cluster, Log and Ceremonies, and it is a
// grpc.ClientConnInterface, so generated clients can be made over it.
type Client struct {
	keys
	classes
	crypto
	cluster
	log
	ceremonies

	cfg   Config
	creds credentials.TransportCredentials

	mu        sync.Mutex
	endpoints []*endpoint // in the order in which they are tried
	preferred *endpoint   // that answered last; nil: the first
	closed    bool

	discovered atomic.Bool
	seen       atomic.Uint64 // the highest index of a reply
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// New checks cfg and makes a client. It connects to nobody yet. The caller closes it.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	tls, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg.withDefaults(), creds: credentials.NewTLS(tls)}
	if err := c.add(c.cfg.Addresses); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.keys, c.crypto, c.cluster = vaultpb.NewKeysClient(c), vaultpb.NewCryptoClient(c), vaultpb.NewClusterClient(c)
	c.log, c.ceremonies, c.classes = vaultpb.NewLogClient(c), vaultpb.NewCeremoniesClient(c), vaultpb.NewClassesClient(c)
	return c, nil
}

// Close ends the connections. Calls under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	endpoints := c.endpoints
	c.endpoints, c.closed = nil, true
	c.mu.Unlock()
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.conn.Close())
	}
	return errors.Join(errs...)
}

// NewStream refuses: the failover of a stream needs an answer to what was already read. Watch has one.
func (c *Client) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, kind.New(kind.Unsupported, "streams have no failover of their own; use Client.Watch", nil)
}

// add appends endpoints for the addresses that have none, up to the limit.
func (c *Client) add(addresses []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	for _, a := range addresses {
		if c.has(a) || len(c.endpoints) == maxAddresses {
			continue
		}
		e, err := newEndpoint(a, c.creds)
		if err != nil {
			return err
		}
		c.endpoints = append(c.endpoints, e)
	}
	return nil
}

func (c *Client) has(address string) bool {
	for _, e := range c.endpoints {
		if e.address == address {
			return true
		}
	}
	return false
}

// order is the order of one round: the node that answered last, then the others as they were given.
func (c *Client) order() []*endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	order := make([]*endpoint, 0, len(c.endpoints))
	if c.preferred != nil && !c.closed {
		order = append(order, c.preferred)
	}
	for _, e := range c.endpoints {
		if e != c.preferred {
			order = append(order, e)
		}
	}
	return order
}

// prefer remembers which node answered; nil forgets, so that the next round starts with the first address again.
func (c *Client) prefer(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.preferred = e
}
