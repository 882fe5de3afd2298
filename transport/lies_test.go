package transport_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// anyLine begins the line of any refusal.
const anyLine = `"msg":"connection refused","port":"api"`

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame is an HTTP/2 frame that declares size bytes and has those of payload.
func frame(size int, typ, flags byte, stream uint32, payload string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(size)<<8|uint32(typ))
	b = binary.BigEndian.AppendUint32(append(b, flags), stream)
	return string(b) + payload
}

func whole(typ, flags byte, stream uint32, payload string) string {
	return frame(len(payload), typ, flags, stream, payload)
}

// headers of a call, as literals without an index (RFC 7541 §6.2.2).
func headers(method string) string {
	var b strings.Builder
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", method}, {":authority", "x"}, {"te", "trailers"}, {"content-type", "application/grpc"},
	} {
		b.WriteString("\x00" + string(rune(len(h[0]))) + h[0] + string(rune(len(h[1]))) + h[1])
	}
	return b.String()
}

// message is a gRPC message that declares size bytes.
func message(flag byte, size uint32, payload string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flag}, size)) + payload
}

const (
	dataFrame, headersFrame, settingsFrame = 0, 1, 4
	endStream, endHeaders                  = 1, 4
	sign                                   = "/conclave.vault.v1.Crypto/Sign"
)

// call begins one, up to its message.
func call(method string) string {
	return preface + whole(settingsFrame, 0, 0, "") + whole(headersFrame, endHeaders, 1, headers(method))
}

// known is somebody whom the cluster knows.
func (s *solo) known(t *testing.T, name string) tls.Certificate {
	t.Helper()
	c := s.issue(s.clients, s.named("administrator", name), time.Hour, time.Now())
	s.record(c.Leaf, fsm.RoleAdministrator, name)
	return c
}

// speak shows a good certificate and says what was never meant to be said. It returns what the node says until it hangs up, or,
// where the node goes on listening, for a moment.
func (s *solo) speak(t *testing.T, who tls.Certificate, words string, hangUp bool) string {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{who}, NextProtos: []string{"h2"}})
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(300*time.Millisecond)))
	_, _ = conn.Write([]byte(words)) // refused at some point, which is the point
	if hangUp {
		must(t, conn.CloseWrite())
	}
	said, _ := io.ReadAll(conn)
	return string(said)
}

// TestHalfSentencesAreRefused: what is no HTTP/2, no gRPC or no message, at every stage, from somebody with a good certificate.
func TestHalfSentencesAreRefused(t *testing.T) {
	s := newSolo(t)
	who := s.known(t, "mallory")
	for _, c := range []struct {
		name, words string
		hangUp      bool
		says        string
	}{
		{"no HTTP/2", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, "not HTTP/2"},
		{"half a preface", preface[:10], true, "truncated"},
		{"no settings", preface + whole(headersFrame, endHeaders, 1, headers(sign)), false, "SETTINGS must"},
		{"a frame of 16 MiB", preface + frame(1<<24-1, settingsFrame, 0, 0, ""), false, "16777215 bytes, at most 16384"},
		{"half a frame header", preface + whole(settingsFrame, 0, 0, "") + "\x00\x00", true, "truncated"},
		{"half a frame", preface + whole(settingsFrame, 0, 0, "") + frame(100, headersFrame, endHeaders, 1, "x"), true, "truncated"},
		{"a message of 4 GiB", call(sign) + whole(dataFrame, endStream, 1, message(0, 1<<32-1, "x")), false, "ResourceExhausted"},
		{"a message that ends early", call(sign) + whole(dataFrame, endStream, 1, message(0, 1000, "x")), false, "Internal"},
		{"half a length", call(sign) + whole(dataFrame, endStream, 1, "\x00\x00"), false, "Internal"},
		{"no protobuf", call(sign) + whole(dataFrame, endStream, 1, message(0, 3, "\xff\xff\xff")), false, "Internal"},
		{"compressed with nothing", call(sign) + whole(dataFrame, endStream, 1, message(1, 3, "abc")), false, "Internal"},
		{"no method", call("/nothing") + whole(dataFrame, endStream, 1, message(0, 0, "")), false, "is no method"},
		{"an unknown service", call("/a.b/C") + whole(dataFrame, endStream, 1, message(0, 0, "")), false, "Unimplemented"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, reason := s.log.count(anyLine), s.log.count(c.says)
			s.speak(t, who, c.words, c.hangUp)
			s.logged(t, anyLine, before+1)
			if s.log.count(c.says) != reason+1 {
				t.Errorf("the line does not say %q", c.says)
			}
			s.serves(t)
		})
	}
	before := s.log.count(anyLine)
	s.speak(t, who, call(sign)+whole(dataFrame, 0, 1, message(0, 1000, "x")), true) // who leaves is not refused
	s.serves(t)
	if n := s.log.count(anyLine); n != before {
		t.Errorf("%d lines about somebody who left", n-before)
	}
	if s.log.count("panic") != 0 {
		t.Error("something panicked")
	}
}

// TestRequestsHaveALimit, to the byte.
func TestRequestsHaveALimit(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.known(t, "ada"))
	defer conn.Close()
	sized := func(size int) *vaultpb.SignRequest {
		in := &vaultpb.SignRequest{Name: "k"}
		for in.Data = make([]byte, size); proto.Size(in) > size; {
			in.Data = in.Data[1:]
		}
		return in
	}
	const limit = 2 << 20
	for size, want := range map[int]kind.Kind{limit: kind.InvalidArgument, limit + 1: kind.Limit} {
		in := sized(size)
		if proto.Size(in) != size {
			t.Fatalf("%d bytes", proto.Size(in))
		}
		if _, err := vaultpb.NewCryptoClient(conn).Sign(t.Context(), in); kind.Of(err) != want {
			t.Errorf("%d bytes: %s: %v", size, kind.Of(err), err)
		}
	}
	s.logged(t, anyLine, 1) // the one that gRPC refused
}

// TestStrangersCannotFillThePort: connections that say nothing have few places and five seconds; each that is refused is a line.
func TestStrangersCannotFillThePort(t *testing.T) {
	s := newSolo(t)
	const places = 128 // of one host
	var silent []net.Conn
	closeAll := func() {
		for _, c := range silent {
			c.Close()
		}
	}
	defer closeAll()
	for range places {
		c, err := net.Dial("tcp", s.addr)
		must(t, err)
		silent = append(silent, c)
	}
	deadline := time.Now().Add(5 * time.Second)
	for s.accepted.Load() < places && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	one, err := net.Dial("tcp", s.addr)
	must(t, err)
	defer one.Close()
	must(t, one.SetReadDeadline(time.Now().Add(4*time.Second)))
	if _, err = one.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("one too many: %v", err)
	}
	s.logged(t, anyLine, 1)
	if s.log.count("of one host without a handshake") != 1 {
		t.Error("the line does not say why")
	}
	began := time.Now()
	for _, c := range silent {
		must(t, c.SetReadDeadline(time.Now().Add(15*time.Second)))
		if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
			t.Fatal("a silent connection lives on")
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("silent connections lived for %s", took)
	}
	for deadline := time.Now().Add(5 * time.Second); s.log.count("not finished within 5s") < 99 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := s.log.count(anyLine); n < 100 || n > 106 {
		t.Errorf("%d lines, want 100 and what time has earned", n)
	}
	closeAll()
	known := s.known(t, "ada")
	for deadline := time.Now().Add(5 * time.Second); err != nil && time.Now().Before(deadline); {
		err = s.status(known)
	}
	if err != nil {
		t.Errorf("after the silence: %v", err)
	}
}

// TestSilenceAfterTheHandshakeEnds: a good certificate is no right to a place without a word.
func TestSilenceAfterTheHandshakeEnds(t *testing.T) {
	t.Parallel()
	s := newSolo(t)
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{s.known(t, "mallory")}, NextProtos: []string{"h2"}})
	must(t, err)
	defer conn.Close()
	must(t, conn.SetReadDeadline(time.Now().Add(15*time.Second)))
	if _, err := io.ReadAll(conn); isTimeout(err) {
		t.Error("it lives on")
	}
	s.logged(t, anyLine, 1)
	s.serves(t)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestARevokedRoleFindsNoNode: on a new connection too.
func TestARevokedRoleFindsNoNode(t *testing.T) {
	s := newSolo(t)
	known := s.issue(s.clients, s.named("user", "ada"), time.Hour, time.Now())
	s.record(known.Leaf, fsm.RoleUser, "ada")
	s.revoke(t, fsm.RoleUser, "ada")
	err := s.status(known)
	if kind.Of(err) != kind.Unauthenticated || kind.ExitCode(err) != kind.ExitDenied || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
	s.logged(t, calledLine, 1)
}

// TestAnAuthorityIsNobody: its certificate is no leaf, even for who holds its key.
func TestAnAuthorityIsNobody(t *testing.T) {
	s := newSolo(t)
	err := s.status(pair(s.clients.Certificate, s.clients.Key))
	if kind.Of(err) != kind.Unauthenticated {
		t.Errorf("%s: %v", kind.Of(err), err)
	}
	s.logged(t, anyLine, 1)
}

// TestManyHeadersAreRefused, and the connection's other calls go on.
func TestManyHeadersAreRefused(t *testing.T) {
	s := newSolo(t)
	conn := s.dial(s.known(t, "ada"))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for size, fits := range map[int]bool{8 << 10: true, 64 << 10: false} {
		_, err := vaultpb.NewClusterClient(conn).Status(metadata.AppendToOutgoingContext(ctx, "x", strings.Repeat("y", size)), &vaultpb.StatusRequest{})
		if (err == nil) != fits || status.Code(err) == codes.DeadlineExceeded {
			t.Errorf("%d bytes of headers: %v", size, err)
		}
	}
	if _, err := vaultpb.NewClusterClient(conn).Status(ctx, &vaultpb.StatusRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
