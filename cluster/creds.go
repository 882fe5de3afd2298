package cluster

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// handshaken lets gRPC use connections whose TLS handshake is over: the port demultiplexes by the handshake's result, so it
// cannot be left to gRPC.
type handshaken struct{}

var _ credentials.TransportCredentials = handshaken{}

// peerInfo says who is at the other end.
type peerInfo struct {
	credentials.CommonAuthInfo
	id      NodeID
	key     string    // of the certificate, DER SubjectPublicKeyInfo
	expires time.Time // of the certificate; zero for a joiner
}

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "tls" }

func info(id NodeID, key string, expires time.Time) peerInfo {
	return peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, id, key, expires}
}

var errNotHandshaken = errors.New("cluster: connection did not come through the cluster port")

func (handshaken) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, ok := c.(*peerConn)
	if !ok {
		return nil, nil, errNotHandshaken
	}
	return p, info(p.id, p.key, p.expires), nil
}

func (handshaken) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, info("", "", time.Time{}), nil // the dialer has checked who it is
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

func (handshaken) OverrideServerName(string) error { return nil }

// caller is the node whose call is being served.
func caller(ctx context.Context) NodeID { return callerInfo(ctx).id }

func callerInfo(ctx context.Context) peerInfo {
	if p, ok := peer.FromContext(ctx); ok {
		if i, ok := p.AuthInfo.(peerInfo); ok {
			return i
		}
	}
	return peerInfo{}
}
