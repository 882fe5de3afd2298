package compose_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// paymentKey is the README's.
const paymentKey = "payments/eu"

// message is what probes have signed.
var message = []byte("a message of the test")

// attempt is one call: it began, and when its answer was here it had ended.
type attempt struct {
	began, ended time.Time
	err          error
}

// probe makes one call after the other until it is stopped, and remembers all of them.
type probe struct {
	name string
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	made []attempt
}

// Pace and patience of probes: often enough to see the last signature, seldom enough for three of them on two cores.
const (
	probeEvery = 10 * time.Millisecond
	writeEvery = 100 * time.Millisecond
)

// probing starts a probe; patience bounds each call. It ends with the test at the latest.
func probing(t *testing.T, name string, every, patience time.Duration, call func(context.Context) error) *probe {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &probe{name: name, stop: cancel}
	p.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			a := attempt{began: time.Now()}
			bounded, cancel := context.WithTimeout(ctx, patience)
			a.err = call(bounded)
			cancel()
			a.ended = time.Now()
			if ctx.Err() != nil {
				return
			}
			p.mu.Lock()
			p.made = append(p.made, a)
			p.mu.Unlock()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(p.end)
	return p
}

func (p *probe) end() {
	p.stop()
	p.done.Wait()
}

func (p *probe) attempts() []attempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]attempt(nil), p.made...)
}

// last successful attempt; false if there is none.
func (p *probe) last() (attempt, bool) {
	var found attempt
	ok := false
	for _, a := range p.attempts() {
		if a.err == nil && a.ended.After(found.ended) {
			found, ok = a, true
		}
	}
	return found, ok
}

// succeeds waits for a success that began after a moment, and returns how long after it the answer came.
func (p *probe) succeeds(t *testing.T, after time.Time, within time.Duration) time.Duration {
	t.Helper()
	var took time.Duration
	eventually(t, within, p.name+" succeeds again", func() error {
		var last error
		for _, a := range p.attempts() {
			switch {
			case !a.began.After(after):
			case a.err == nil:
				took = a.ended.Sub(after)
				return nil
			default:
				last = a.err
			}
		}
		return fmt.Errorf("the last failure: %w", last)
	})
	return took
}

// unbroken demands many attempts since a moment, all of them successful.
func (p *probe) unbroken(t *testing.T, since time.Time, atLeast int) {
	t.Helper()
	n := 0
	for _, a := range p.attempts() {
		if a.began.Before(since) {
			continue
		}
		n++
		if a.err != nil {
			t.Errorf("%s failed %s later: %v", p.name, a.began.Sub(since), a.err)
		}
	}
	if n < atLeast {
		t.Errorf("%s: %d calls, at least %d are needed to say anything", p.name, n, atLeast)
	}
}

// signing is a call that has one node sign with a key, and checks the signature with the key's public half.
func signing(t *testing.T, api *client.Client, node, key string) func(context.Context) error {
	t.Helper()
	public := publicKey(t, api, key)
	return func(ctx context.Context) error {
		s, err := api.Sign(ctx, &vaultpb.SignRequest{Name: key, Data: message})
		if err != nil {
			return err
		}
		digest := sha256.Sum256(message)
		if !ecdsa.VerifyASN1(public, digest[:], s.GetSignature()) || s.GetNode() != node {
			t.Errorf("node %q gave %x for %s at %s", s.GetNode(), s.GetSignature(), key, node)
		}
		return nil
	}
}

func publicKey(t *testing.T, api *client.Client, key string) *ecdsa.PublicKey {
	t.Helper()
	reply, err := api.GetPublicKey(t.Context(), &vaultpb.GetPublicKeyRequest{Name: key})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(reply.GetPem()))
	if block == nil {
		t.Fatalf("the public key of %s is no PEM", key)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok {
		t.Fatalf("the public key of %s is a %T, %v", key, parsed, err)
	}
	return public
}

// writing is a call that makes a key of a new name.
func writing(api *client.Client, prefix string) func(context.Context) error {
	n := 0
	return func(ctx context.Context) error {
		n++
		_, err := api.CreateKey(ctx, &vaultpb.CreateKeyRequest{Name: fmt.Sprintf("%s/%d", prefix, n), Algorithm: "ed25519"})
		return err
	}
}
