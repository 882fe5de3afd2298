package transport_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// TestEveryReplyCarriesAnIndex: a new method without one breaks the promise for everybody who goes from it to another.
func TestEveryReplyCarriesAnIndex(t *testing.T) {
	services := vaultpb.File_transport_vaultpb_vault_proto.Services()
	methods := 0
	for i := range services.Len() {
		all := services.Get(i).Methods()
		for j := range all.Len() {
			m := all.Get(j)
			f := m.Output().Fields().ByName("index")
			if f == nil || f.Kind() != protoreflect.Uint64Kind || f.IsList() {
				t.Errorf("%s: the reply %s has no uint64 index", m.FullName(), m.Output().Name())
			}
			methods++
		}
	}
	if methods < 30 {
		t.Errorf("only %d methods were looked at", methods)
	}
}

// ada is an administrator whom the state knows.
func (s *solo) ada() tls.Certificate {
	s.t.Helper()
	c := s.issue(s.clients, s.named("administrator", "ada"), time.Hour, time.Now())
	s.record(c.Leaf, fsm.RoleAdministrator, "ada")
	return c
}

// demanding calls with the given values of the metadata key, and says how long it took.
func (s *solo) demanding(who tls.Certificate, within time.Duration, values ...string) (*vaultpb.StatusReply, time.Duration, error) {
	s.t.Helper()
	conn := s.dial(who)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	for _, v := range values {
		ctx = metadata.AppendToOutgoingContext(ctx, "conclave-min-index", v)
	}
	start := time.Now()
	reply, err := vaultpb.NewClusterClient(conn).Status(ctx, &vaultpb.StatusRequest{})
	return reply, time.Since(start), err
}

func TestADemandedIndexIsThere(t *testing.T) {
	s := newSolo(t)
	who := s.ada()
	at := s.replica.Applied()
	for _, demand := range []uint64{0, 1, at} {
		reply, _, err := s.demanding(who, 10*time.Second, fmt.Sprint(demand))
		if err != nil || reply.GetIndex() < at {
			t.Errorf("index %d, applied are %d: reply at %d, %v", demand, at, reply.GetIndex(), err)
		}
	}
}

func TestADemandThatIsNoIndexIsRefused(t *testing.T) {
	s := newSolo(t)
	who := s.ada()
	for _, values := range [][]string{{""}, {"x"}, {"-1"}, {"1.0"}, {"18446744073709551616"}, {"1", "1"}} {
		if _, _, err := s.demanding(who, 10*time.Second, values...); kind.Of(err) != kind.InvalidArgument || !strings.Contains(err.Error(), "conclave-min-index") {
			t.Errorf("%q: %v", values, err)
		}
	}
}

// TestAnIndexThatNobodyCommittedIsRefusedAtOnce: long before the caller's deadline, and with both numbers.
func TestAnIndexThatNobodyCommittedIsRefusedAtOnce(t *testing.T) {
	s := newSolo(t)
	who := s.ada()
	_, took, err := s.demanding(who, time.Minute, "18446744073709551615")
	if kind.Of(err) != kind.InvalidArgument || took > 10*time.Second {
		t.Fatalf("after %s: %v", took, err)
	}
	for _, number := range []string{"18446744073709551615", fmt.Sprint(s.replica.Applied())} {
		if !strings.Contains(err.Error(), number) {
			t.Errorf("%q does not name %s", err, number)
		}
	}
}

// TestANodeThatIsBehindWaitsAndThenSaysSo: the index exists, and does not come.
func TestANodeThatIsBehindWaitsAndThenSaysSo(t *testing.T) {
	s := newSolo(t)
	who := s.ada()
	s.ahead.Store(5)
	at := s.replica.Applied()
	_, took, err := s.demanding(who, time.Second, fmt.Sprint(at+5))
	if kind.Of(err) != kind.Unavailable || kind.ExitCode(err) != 6 || took < 700*time.Millisecond {
		t.Fatalf("after %s: %v", took, err)
	}
	for _, words := range []string{"node n1", fmt.Sprintf("has applied index %d,", at), fmt.Sprintf("demands %d", at+5)} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
}

// TestANodeThatCatchesUpAnswers: the index comes while the request waits.
func TestANodeThatCatchesUpAnswers(t *testing.T) {
	s := newSolo(t)
	who := s.ada()
	s.ahead.Store(1)
	at := s.replica.Applied()
	answered := make(chan error, 1)
	go func() {
		reply, _, err := s.demanding(who, time.Minute, fmt.Sprint(at+1))
		if err == nil && reply.GetIndex() <= at {
			err = fmt.Errorf("the reply is at %d", reply.GetIndex())
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered before the entry was there: %v", err)
	case <-time.After(300 * time.Millisecond): // longer than until the leader is asked
	}
	s.ada() // a certificate's record is an entry
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestStrangersMakeNobodyWait: whoever is not of this cluster is refused before the index is looked at.
func TestStrangersMakeNobodyWait(t *testing.T) {
	s := newSolo(t)
	s.ahead.Store(5)
	stranger := leaf(t, s.clients, uris(t, "https://example.org/nobody"))
	if _, _, err := s.demanding(stranger, time.Minute, fmt.Sprint(s.replica.Applied()+5)); kind.Of(err) != kind.Unauthenticated {
		t.Errorf("%v", err)
	}
}
