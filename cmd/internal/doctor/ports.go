package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

// Bounds of asking the network.
const (
	lookupTimeout    = 3 * time.Second
	handshakeTimeout = 2 * time.Second
)

// port is an address that the node listens on.
type port struct {
	name     string // as in the configuration
	endpoint config.Endpoint
	udp      bool   // besides TCP
	protocol string // of TLS: what makes the server show its certificate; empty: it speaks no TLS
}

func (c *checkup) ports() []port {
	all := []port{{"api", c.cfg.API, false, "h2"}, {"cluster", c.cfg.Cluster, false, "conclave-raft/1"}}
	if c.cfg.Gossip.Bind != "" {
		all = append(all, port{"gossip", c.cfg.Gossip, true, ""})
	}
	return all
}

// checkPort binds the address for a moment. If it is taken, by whom decides.
func (c *checkup) checkPort(ctx context.Context, p port) Result {
	name := "port " + p.name
	bind := p.endpoint.Bind
	if _, number, _ := net.SplitHostPort(bind); number == "0" {
		return absent(name, "%s: any free port", bind)
	}
	network, err := "tcp", tryTCP(ctx, bind)
	if err == nil && p.udp {
		network, err = "udp", tryUDP(ctx, bind)
	}
	switch {
	case err == nil:
		if c.server != 0 {
			return warn(name, fmt.Sprintf("%s is free, though the server runs (pid %d)", bind, c.server),
				"see in the server's log whether it is still starting, or runs with another configuration")
		}
		return good(name, "%s is free", bind)
	case errors.Is(err, unix.EADDRINUSE):
		return c.taken(ctx, name, network, p)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fail(name, bind+": no interface of this host has this address",
			fmt.Sprintf("give %s.bind an address that ip address shows, or 0.0.0.0", p.name))
	case errors.Is(err, unix.EACCES):
		return fail(name, bind+": this user may not listen on it",
			fmt.Sprintf("give %s.bind a port from 1024 on, or the service the capability CAP_NET_BIND_SERVICE", p.name))
	}
	return fail(name, err.Error(), fmt.Sprintf("correct %s.bind in the configuration", p.name))
}

func tryTCP(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func tryUDP(ctx context.Context, addr string) error {
	l, err := new(net.ListenConfig).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

// taken tells this node's own server from another program: by the process that holds the socket if the kernel shows it, else by the
// certificate that the server there shows.
func (c *checkup) taken(ctx context.Context, name, network string, p port) Result {
	bind := p.endpoint.Bind
	owner, known := c.socketOwner(network, bind)
	switch {
	case known && owner.pid == c.server:
		return good(name, "%s is in use by this node's running server (pid %d)", bind, owner.pid)
	case p.protocol != "" && c.member != nil && showsCertificate(ctx, bind, p.protocol, c.member.Certificate):
		c.shown = true
		return good(name, "%s is in use by a server that shows this node's certificate", bind)
	case !known && p.protocol == "" && c.shown:
		return good(name, "%s is in use while this node's server runs; the kernel does not show this user by whom", bind)
	case known:
		return fail(name, fmt.Sprintf("%s/%s is in use by %s (pid %d)", bind, network, owner.command, owner.pid),
			fmt.Sprintf("stop that process, or give %s.bind another port", p.name))
	case c.server != 0:
		return good(name, "%s is in use while this node's server runs (pid %d); the kernel does not show this user by whom", bind, c.server)
	}
	return fail(name, fmt.Sprintf("%s/%s is in use by a process of another user", bind, network),
		fmt.Sprintf("find it as root: ss -lpn 'sport = :%s'; stop it, or give %s.bind another port", bind[strings.LastIndex(bind, ":")+1:], p.name))
}

// errSeen ends a handshake when the certificate was seen: nothing else is wanted of the server.
var errSeen = errors.New("seen")

// showsCertificate reports whether the server at addr proves that it has this certificate's key. In TLS 1.3 a server does so before it
// asks the client for anything.
func showsCertificate(ctx context.Context, addr, protocol string, der []byte) bool {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	shown := false
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protocol},
		InsecureSkipVerify: true, // the certificate is compared as a whole, which is stricter
		VerifyConnection: func(s tls.ConnectionState) error {
			shown = len(s.PeerCertificates) > 0 && slices.Equal(s.PeerCertificates[0].Raw, der)
			return errSeen
		},
	}}
	if conn, err := d.DialContext(ctx, "tcp", here(addr)); err == nil {
		_ = conn.Close()
	}
	return shown
}

// here is an address at which a bound one can be called from this host.
func here(bind string) string {
	host, port, _ := net.SplitHostPort(bind)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// checkAddress looks at the address that others are told.
func (c *checkup) checkAddress(ctx context.Context, p port) Result {
	name := "address " + p.name
	host, _, err := net.SplitHostPort(p.endpoint.Advertise)
	if err != nil {
		return fail(name, err.Error(), fmt.Sprintf("correct %s.advertise", p.name))
	}
	ips, err := c.resolve(ctx, host)
	if err != nil {
		return fail(name, fmt.Sprintf("%s does not resolve: %v", host, err),
			fmt.Sprintf("enter %s into the DNS (every node resolves it), or give %s.advertise an IP address", host, p.name))
	}
	loops := slices.ContainsFunc(ips, net.IP.IsLoopback)
	if elsewhere := c.peerElsewhere(ctx); loops && elsewhere != "" {
		return warn(name, fmt.Sprintf("%s is loopback, and the peer %s is not on this host: it calls itself there", p.endpoint.Advertise, elsewhere),
			fmt.Sprintf("give %s.advertise an address that the other nodes reach", p.name))
	}
	note := ""
	switch mine := ownAddresses(); {
	case loops:
		note = ", which only this host reaches"
	case !slices.ContainsFunc(ips, func(ip net.IP) bool { return slices.ContainsFunc(mine, ip.Equal) }):
		note = ", which no interface of this host has: a balancer or a translated address"
	}
	return good(name, "%s is %s%s", p.endpoint.Advertise, listed(ips), note)
}

func (c *checkup) resolve(ctx context.Context, host string) ([]net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return []net.IP{ip}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := c.lookup(ctx, host)
	if err == nil && len(ips) == 0 {
		err = errors.New("no address")
	}
	return ips, err
}

// peerElsewhere is a peer that is not on this host, by its address; empty if none is known.
func (c *checkup) peerElsewhere(ctx context.Context) string {
	var peers []string
	for _, addr := range c.cfg.Peers {
		peers = append(peers, addr)
	}
	if c.member != nil {
		peers = append(peers, c.member.Peers...)
	}
	slices.Sort(peers)
	for _, addr := range peers {
		host, _, _ := net.SplitHostPort(addr)
		ips, err := c.resolve(ctx, host)
		if err != nil || !slices.ContainsFunc(ips, net.IP.IsLoopback) {
			return addr // a name that does not resolve here is not this host's own
		}
	}
	return ""
}

func ownAddresses() []net.IP {
	addrs, _ := net.InterfaceAddrs() // none: every address is another host's, which is a note and no more
	var ips []net.IP
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			ips = append(ips, n.IP)
		}
	}
	return ips
}

func listed(ips []net.IP) string {
	texts := make([]string, len(ips))
	for i, ip := range ips {
		texts[i] = ip.String()
	}
	return strings.Join(texts, ", ")
}

// rootsOf is a pool of one authority.
func rootsOf(der []byte) (*x509.CertPool, error) {
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool, nil
}
