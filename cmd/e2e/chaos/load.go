package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// steady is a key that nobody restricts, to see gaps; drill is the one that is suspended under each fault.
	steady, drill = "chaos/steady", "chaos/drill"
	// slow is a key whose signatures take the HSM some milliseconds: what a node is at when it is paused is one of these.
	slow = "chaos/slow"
	// useTime bounds a request for a signature: longer than most pauses, so that what waits in a paused node's socket is seen.
	useTime = 8 * time.Second
	// burstWorkers is little, so that a request spends its time in the HSM and not in a queue.
	burstWorkers = 3
	// writerPace keeps a writer below the requests that one identity may make.
	writerPace = 65 * time.Millisecond
	// changeTime bounds an administrator's patience with one change.
	changeTime = 90 * time.Second
)

// officerKeys are suspended and resumed all the time.
var officerKeys = []string{"chaos/officer/1", "chaos/officer/2", "chaos/officer/3"}

// durableClass is standard with records that are on the disk before the answer. Keys that are restricted are of it; those of others, and of
// the ones that look for gaps, have theirs buffered.
const durableClass = "chaos-durable"

func durable(key string) bool {
	return key == drill || key == slow || slices.Contains(officerKeys, key)
}

// createClass makes it.
func (l *load) createClass(api *client.Client) error {
	standard, err := insist(api.GetClass, &vaultpb.GetClassRequest{Name: "standard"})
	if err != nil {
		return err
	}
	class := standard.GetClass()
	class.Name, class.UsageLog, class.BuiltIn, class.Revision = durableClass, "durable", false, 0
	if _, err := insist(api.CreateClass, &vaultpb.CreateClassRequest{Class: class}); err != nil {
		return fmt.Errorf("creating the class %s: %w", durableClass, err)
	}
	return nil
}

// load is the clients. Each finishes what it began when it is told to stop, so that every outcome is known at the end.
type load struct {
	c       *cluster
	h       *history
	seed    uint64
	conns   map[string]*grpc.ClientConn // by node, each request sent once
	stop    chan struct{}
	running sync.WaitGroup
	clients []interface{ Close() error }
	asked   atomic.Uint64 // requests for signatures

	mu     sync.Mutex
	errs   []error
	states map[string]string // of keys, as last acknowledged
}

func newLoad(c *cluster, h *history, seed uint64) *load {
	return &load{c: c, h: h, seed: seed, conns: map[string]*grpc.ClientConn{}, stop: make(chan struct{}), states: map[string]string{}}
}

func (l *load) stopping() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// rest waits; false if the load is to stop.
func (l *load) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.stop:
		return false
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *load) acknowledged(key, state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[key] = state
}

// end stops the clients and waits for them. Their silence is no fault's doing.
func (l *load) end() error {
	now := l.h.now()
	l.h.note(func(h *history) { h.starts = append(h.starts, now) })
	close(l.stop)
	l.running.Wait()
	for _, c := range l.clients {
		l.errs = append(l.errs, c.Close())
	}
	return errors.Join(l.errs...)
}

// api is a client that lives as long as the load.
func (l *load) api(addrs ...string) (*client.Client, error) {
	cfg, err := l.c.config(addrs)
	if err != nil {
		return nil, err
	}
	return l.client(cfg)
}

func (l *load) client(cfg client.Config) (*client.Client, error) {
	api, err := client.New(cfg)
	if err == nil {
		l.mu.Lock()
		l.clients = append(l.clients, api)
		l.mu.Unlock()
	}
	return api, err
}

// another is a client like api with an administrator's identity of its own: the requests of one identity are bounded, 10,000 in ten minutes.
func (l *load) another(name string, addrs ...string) (*client.Client, error) {
	api, err := l.api(addrs...)
	if err != nil {
		return nil, err
	}
	cfg, err := l.c.config(addrs)
	if err != nil {
		return nil, err
	}
	if cfg.Certificate, err = issue(api, "administrator", name); err != nil {
		return nil, err
	}
	return l.client(cfg)
}

// single is a connection to one node, on which each request is sent once: its time of sending is certain.
func single(n *node, pair tls.Certificate) (*grpc.ClientConn, error) {
	// Whom it speaks to is not the question here; the SDK's checks have tests of their own.
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	quick := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: 2 * time.Second}
	return grpc.NewClient("passthrough:///"+n.api, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry(), grpc.WithConnectParams(quick))
}

// signer asks one node for signatures until done says so.
func (l *load) signer(n *node, conn *grpc.ClientConn, key, subject string, pace time.Duration, done func() bool) {
	api := vaultpb.NewCryptoClient(conn)
	for !done() {
		// Not the campaign's context: a request that is broken off by us would have no outcome.
		ctx, cancel := context.WithTimeout(context.Background(), useTime)
		u := use{node: n.id, subject: subject, id: fmt.Sprintf("chaos-%d", l.asked.Add(1)), start: l.h.now()}
		reply, err := api.Sign(client.WithRequestID(ctx, u.id), &vaultpb.SignRequest{Name: key, Data: []byte("chaos")})
		u.end, u.signed, u.kind, u.index = l.h.now(), err == nil && len(reply.GetSignature()) > 0, kind.Of(err), reply.GetIndex()
		cancel()
		l.h.used(u)
		if !l.rest(pace) {
			return
		}
	}
}

// burst keeps a node busy with the slow key. It returns a function that begins no more requests, and one that waits for the last.
func (l *load) burst(n *node) (enough, wait func()) {
	var signing sync.WaitGroup
	over := make(chan struct{})
	done := func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	for range burstWorkers {
		signing.Go(func() { l.signer(n, l.conns[n.id], slow, slow, 0, done) })
	}
	return sync.OnceFunc(func() { close(over) }), signing.Wait
}

// signers ask every node for signatures with every key, all the time.
func (l *load) signers() error {
	pair, err := tls.LoadX509KeyPair(l.c.env["CONCLAVE_CERT"], l.c.env["CONCLAVE_KEY"])
	if err != nil {
		return err
	}
	for _, n := range l.c.nodes {
		conn, err := single(n, pair)
		if err != nil {
			return err
		}
		l.clients, l.conns[n.id] = append(l.clients, conn), conn
		start := func(key string, pace time.Duration) {
			l.running.Go(func() { l.signer(n, conn, key, key, pace, l.stopping) })
		}
		start(steady, 10*time.Millisecond)
		for range 2 {
			start(drill, 25*time.Millisecond)
		}
		for _, key := range officerKeys {
			start(key, 30*time.Millisecond)
		}
	}
	return nil
}

// insist makes a change until it is acknowledged, under one request id.
func insist[Q, R any](call func(context.Context, Q, ...grpc.CallOption) (R, error), request Q) (R, error) {
	ctx, cancel := context.WithTimeout(context.Background(), changeTime)
	defer cancel()
	return call(ctx, request)
}

func changeKey(api *client.Client, key string, action vaultpb.KeyAction) (*vaultpb.KeyReply, error) {
	return insist(api.ChangeKey, &vaultpb.ChangeKeyRequest{Name: key, Action: action, Reason: "chaos"})
}

// suspend suspends a key and notes the acknowledgement; lift resumes it.
func (l *load) suspend(api *client.Client, key, during string) (took time.Duration, lift func() error, err error) {
	r := restriction{subject: key, during: during, sent: l.h.now()}
	if _, err := changeKey(api, key, vaultpb.KeyAction_KEY_ACTION_SUSPEND); err != nil {
		return 0, nil, fmt.Errorf("suspending %s: %w", key, err)
	}
	r.acked = l.h.now()
	lifted := l.h.restricted(r)
	l.acknowledged(key, "suspended")
	return r.acked - r.sent, func() error {
		lifted()
		if _, err := changeKey(api, key, vaultpb.KeyAction_KEY_ACTION_RESUME); err != nil {
			return fmt.Errorf("resuming %s: %w", key, err)
		}
		l.acknowledged(key, "active")
		return nil
	}, nil
}

// upTo is a random time below d.
func upTo(dice *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(dice.Int64N(int64(d)))
}

// officer suspends and resumes a key at random moments. The last suspension is left as it is.
func (l *load) officer(i int, key string) error {
	api, err := l.api(l.c.addresses(i)...)
	if err != nil {
		return err
	}
	dice := rand.New(rand.NewPCG(l.seed, uint64(i)))
	l.running.Go(func() {
		for l.rest(200*time.Millisecond + upTo(dice, 600*time.Millisecond)) {
			_, lift, err := l.suspend(api, key, "")
			if err == nil && l.rest(50*time.Millisecond+upTo(dice, 500*time.Millisecond)) {
				err = lift()
			}
			if err != nil {
				l.fail(err)
				return
			}
		}
	})
	return nil
}

func (l *load) create(api *client.Client, key, algorithm string, labels ...*vaultpb.Label) error {
	class := ""
	if durable(key) {
		class = durableClass
	}
	if _, err := insist(api.CreateKey, &vaultpb.CreateKeyRequest{Name: key, Algorithm: algorithm, Labels: labels, Class: class}); err != nil {
		return fmt.Errorf("creating %s: %w", key, err)
	}
	l.acknowledged(key, "active")
	return nil
}

// writer creates keys one after another.
func (l *load) writer(i int) error {
	api, err := l.another(fmt.Sprintf("writer-%d", i), l.c.addresses(i)...)
	if err != nil {
		return err
	}
	l.running.Go(func() {
		for k := 0; l.rest(writerPace); k++ {
			w := write{writer: l.c.nodes[i].id, key: fmt.Sprintf("chaos/writer/%d/%06d", i, k)}
			if err := l.create(api, w.key, "ed25519"); err != nil {
				l.fail(err)
				return
			}
			w.acked = l.h.now()
			l.h.note(func(h *history) { h.writes = append(h.writes, w) })
		}
	})
	return nil
}

// reader rotates keys and signs with them through each node in turn: with the token of the rotation no node may sign with an older
// version, and one that cannot have it says so.
func (l *load) reader() error {
	api, err := l.api(l.c.addresses(0)...)
	if err != nil {
		return err
	}
	var each []*client.Client
	for _, n := range l.c.nodes {
		one, err := l.api(n.api)
		if err != nil {
			return err
		}
		each = append(each, one)
	}
	l.running.Go(func() {
		for turn := 0; l.rest(300 * time.Millisecond); turn++ {
			k, err := l.rotate(api, turn)
			if err != nil {
				l.fail(err)
				return
			}
			l.read(each[turn%len(each)], k)
		}
	})
	return nil
}

// rotations is what one key takes; its versions are bounded, at a thousand.
const rotations = 500

// rotate makes the next version of the key whose turn it is, and the key before its first one.
func (l *load) rotate(api *client.Client, turn int) (*vaultpb.KeyReply, error) {
	key := fmt.Sprintf("chaos/rotated/%d", turn/rotations)
	if turn%rotations == 0 {
		if err := l.create(api, key, "ed25519"); err != nil {
			return nil, err
		}
	}
	k, err := insist(api.RotateKey, &vaultpb.RotateKeyRequest{Name: key})
	if err != nil {
		return nil, fmt.Errorf("rotating %s: %w", key, err)
	}
	return k, nil
}

func (l *load) read(at *client.Client, k *vaultpb.KeyReply) {
	ctx, cancel := context.WithTimeout(client.WithToken(context.Background(), k.GetIndex()), 2*time.Second)
	defer cancel()
	s, err := at.Sign(ctx, &vaultpb.SignRequest{Name: k.GetKey().GetName(), Data: []byte("chaos")})
	if err != nil {
		return // an answer that it cannot give now
	}
	l.h.note(func(h *history) {
		h.staleReads++
		if want := k.GetKey().GetPrimaryVersion(); s.GetVersion() < want {
			h.stale = append(h.stale, fmt.Sprintf("%s signed with version %d for a request that had seen version %d at index %d", s.GetNode(), s.GetVersion(), want, k.GetIndex()))
		}
	})
}

// roles issues certificates, lets their holders sign everywhere, and takes the role away again while they go on.
func (l *load) roles() error {
	api, err := l.api(l.c.addresses(1)...)
	if err != nil {
		return err
	}
	l.running.Go(func() {
		for i := 0; l.rest(time.Second); i++ {
			if err := l.role(api, fmt.Sprintf("user-%05d", i)); err != nil {
				l.fail(err)
				return
			}
		}
	})
	return nil
}

func (l *load) role(api *client.Client, name string) error {
	key := "chaos/user/" + name
	if err := l.create(api, key, "ed25519", &vaultpb.Label{Name: "users", Value: name}); err != nil {
		return err
	}
	pair, err := issue(api, "user", name)
	if err != nil {
		return err
	}
	var signing sync.WaitGroup
	gone := make(chan struct{})
	done := func() bool {
		select {
		case <-gone:
			return true
		default:
			return false
		}
	}
	for _, n := range l.c.nodes {
		conn, err := single(n, pair)
		if err != nil {
			return err
		}
		defer conn.Close()
		signing.Go(func() { l.signer(n, conn, key, "role "+name, 25*time.Millisecond, done) })
	}
	defer signing.Wait()
	defer close(gone)
	l.rest(500 * time.Millisecond)
	r := restriction{subject: "role " + name, sent: l.h.now()}
	if _, err := insist(api.RevokeCertificate, &vaultpb.RevokeCertificateRequest{Role: "user", Name: name, Reason: "chaos"}); err != nil {
		return fmt.Errorf("revoking the role of %s: %w", name, err)
	}
	r.acked = l.h.now()
	l.h.restricted(r)
	l.rest(700 * time.Millisecond)
	return nil
}

func issue(api *client.Client, role, name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	csr, err := x509.CreateCertificateRequest(crand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	reply, err := insist(api.IssueCertificate, &vaultpb.IssueCertificateRequest{Role: role, Name: name, Csr: csr})
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issuing a certificate for %s: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(reply.GetCertificate())
	return tls.Certificate{Certificate: [][]byte{reply.GetCertificate()}, PrivateKey: key, Leaf: leaf}, err
}
