package dev

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/custody"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// pollEvery is how often forming looks whether a step is done.
const pollEvery = 100 * time.Millisecond

// forming brings the cluster to where every node has signed.
type forming struct {
	*dev
	start func(place)
	admin *client.Client
}

func (f *forming) form(ctx context.Context) error {
	steps := []struct {
		text string
		do   func(context.Context) error
	}{
		{"writing configurations", f.configure},
		{"founding the cluster on n1", f.found},
		{"waiting for the cluster to answer", f.answer},
		{"joining the other nodes", f.joinAll},
		{"genesis ceremony: three custodians, two needed", f.genesis},
		{"unsealing every node with two shares", f.unseal},
		{"issuing the user's certificate", f.user},
		{"a signature from every node", f.proveAll},
		{"writing env.sh and user.env.sh", f.environment},
	}
	defer func() {
		if f.admin != nil {
			f.admin.Close()
		}
	}()
	for i, s := range steps {
		f.say("[%d/%d] %s", i+1, len(steps), s.text)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.text, err)
		}
	}
	return nil
}

func (f *forming) configure(context.Context) error {
	for i, p := range f.places {
		if err := errors.Join(f.writePIN(p.ID), f.writeConfig(p, f.places, i == 0, f.module), f.makeToken(p)); err != nil {
			return err
		}
	}
	return nil
}

// found founds the cluster at the first start, and starts every node that is a member already.
func (f *forming) found(context.Context) error {
	first := f.places[0]
	if !exists(f.membership(first.ID)) {
		cfg, err := config.Load(f.config(first.ID))
		if err != nil {
			return err
		}
		for _, name := range []string{adminName + ".key", adminName + ".crt", "ca.crt"} {
			_ = os.Remove(f.secret(name)) // of an interrupted founding: without a membership it opens nothing
		}
		if _, err := node.Found(cfg, true, adminName, clientLife, f.secrets()); err != nil {
			return err
		}
	}
	for _, p := range f.places {
		if exists(f.membership(p.ID)) {
			f.start(p)
		}
	}
	var err error
	f.admin, err = f.client(adminName, f.addresses()...)
	return err
}

// clientLife of the demonstration's certificates.
const clientLife = 398 * 24 * time.Hour

// until repeats a step until it succeeds; the last error tells why it did not.
func until(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (f *forming) answer(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_, err := f.admin.ListNodes(ctx, &vaultpb.ListNodesRequest{})
		return err
	})
}

// joinAll starts the nodes that are not members yet, each with a token of its own, and waits until all vote.
func (f *forming) joinAll(ctx context.Context) error {
	for _, p := range f.places {
		if exists(f.membership(p.ID)) {
			continue
		}
		t, err := f.admin.CreateJoinToken(ctx, &vaultpb.CreateJoinTokenRequest{Node: p.ID})
		if err != nil {
			return err
		}
		if err := writeFile(f.secret(p.ID+".token"), []byte(t.GetToken()+"\n")); err != nil {
			return err
		}
		f.start(p)
	}
	return until(ctx, func(ctx context.Context) error {
		nodes, err := f.admin.ListNodes(ctx, &vaultpb.ListNodesRequest{})
		if err != nil {
			return err
		}
		voters := 0
		for _, n := range nodes.GetItems() {
			if n.GetVoter() {
				voters++
			}
		}
		if voters < len(f.places) {
			return fmt.Errorf("%d of %d nodes vote", voters, len(f.places))
		}
		return nil
	})
}

// holders opens the demo custodians' identities, making those that are missing.
func (d *dev) holders() ([]*custody.Holder, error) {
	var all []*custody.Holder
	for _, name := range custodianNames {
		path := d.custodian(name)
		if !exists(path) {
			id, err := ceremony.NewIdentity(name)
			if err != nil {
				return nil, err
			}
			if err := id.Create(path, nil); err != nil {
				return nil, err
			}
		}
		h, err := custody.OpenHolder(path, func() ([]byte, error) { return nil, errors.New("a demo custodian has no passphrase") })
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func wipe(holders []*custody.Holder) {
	for _, h := range holders {
		h.Wipe()
	}
}

func (f *forming) genesis(ctx context.Context) error {
	api := vaultpb.NewCeremoniesClient(f.admin)
	rosters, err := api.GetRosters(ctx, &vaultpb.GetRostersRequest{})
	if err != nil || rosters.GetMaster() != nil {
		return err // done at an earlier start
	}
	if err := f.abandon(ctx, api); err != nil {
		return err
	}
	holders, err := f.holders()
	if err != nil {
		return err
	}
	defer wipe(holders)
	var custodians []fsm.Custodian
	for _, h := range holders {
		custodians = append(custodians, h.Public())
	}
	if _, err := custody.StartGenesis(ctx, api, threshold, custodians, 0); err != nil {
		return err
	}
	_, err = custody.Genesis(ctx, api, holders, custody.Options{Pause: quick}, f.tell)
	return err
}

// abandon aborts a genesis that an interrupted start left open: its custodians' contributions went with that process.
func (f *forming) abandon(ctx context.Context, api vaultpb.CeremoniesClient) error {
	open, err := api.GetCeremony(ctx, &vaultpb.GetCeremonyRequest{Purpose: string(fsm.PurposeGenesis)})
	if kind.Of(err) == kind.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	switch fsm.Phase(open.GetCeremony().GetPhase()) {
	case fsm.PhaseDone, fsm.PhaseAborted:
		return nil
	}
	_, err = api.AbortCeremony(ctx, &vaultpb.AbortCeremonyRequest{Ceremony: open.GetCeremony().GetId(), Reason: "conclave dev was interrupted"})
	if kind.Of(err) == kind.Ceremony { // it ended by itself meanwhile: its dealer was started anew, too
		return nil
	}
	return err
}

func (d *dev) tell(text string) { d.say("      %s", text) }

// quick is the pause between two looks at a ceremony whose custodians are all here.
func quick(ctx context.Context) error {
	select {
	case <-time.After(pollEvery):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *forming) unseal(ctx context.Context) error { return f.unsealAll(ctx, f.admin, false) }

// unsealAll gives two shares, until every node is unsealed. It waits for nodes that do not answer: they are about to start. With
// again it is for nodes that came back to a cluster in service: one that is sealed as a whole, by order, stays so.
func (d *dev) unsealAll(ctx context.Context, c *client.Client, again bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return until(ctx, func(ctx context.Context) error {
		s, err := c.Status(ctx, &vaultpb.StatusRequest{})
		if err != nil {
			return err
		}
		waiting, sealed, open := 0, 0, 0
		for _, n := range s.GetNodes() {
			switch {
			case n.GetRole() == "unreachable":
				waiting++
			case n.GetSealed():
				sealed++
			default:
				open++
			}
		}
		if again && open == 0 && waiting == 0 {
			d.say("the whole cluster is sealed; unseal it with: conclave ceremony unseal --identity %s --identity %s",
				quote(d.custodian(custodianNames[0])), quote(d.custodian(custodianNames[1])))
			return nil
		}
		if sealed > 0 {
			if err := d.giveShares(ctx, c); err != nil {
				return err
			}
			return fmt.Errorf("%d nodes were sealed", sealed) // look again
		}
		if waiting > 0 {
			return fmt.Errorf("%d nodes do not answer", waiting)
		}
		return nil
	})
}

func (d *dev) giveShares(ctx context.Context, c *client.Client) error {
	holders, err := d.holders()
	if err != nil {
		return err
	}
	defer wipe(holders)
	_, err = custody.Unseal(ctx, vaultpb.NewCeremoniesClient(c), holders[:threshold], custody.Options{Pause: quick}, d.tell)
	return err
}

// user issues the certificate of the demo user, unless its files are complete.
func (f *forming) user(ctx context.Context) error {
	if exists(f.secret(userName+".crt")) && exists(f.secret(userName+".key")) {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	reply, err := f.admin.IssueCertificate(ctx, &vaultpb.IssueCertificateRequest{Role: string(fsm.RoleUser), Name: userName, Csr: csr})
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(f.secret(userName+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		writeFile(f.secret(userName+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reply.GetCertificate()})))
}

// probeKey is the key with which every node proves that it serves. The user may try it.
const probeKey = "dev/probe"

func (f *forming) proveAll(ctx context.Context) error {
	_, err := f.admin.GetKey(ctx, &vaultpb.GetKeyRequest{Name: probeKey})
	if kind.Of(err) == kind.NotFound {
		_, err = f.admin.CreateKey(ctx, &vaultpb.CreateKeyRequest{
			Name: probeKey, Algorithm: "ecdsa-p256", Labels: []*vaultpb.Label{{Name: "users", Value: userName}},
		})
	}
	if err != nil {
		return err
	}
	for _, p := range f.places {
		if err := until(ctx, func(ctx context.Context) error { return f.prove(ctx, p) }); err != nil {
			return fmt.Errorf("%s: %w", p.ID, err)
		}
	}
	return nil
}

// prove asks one node for a signature with the user's certificate. If somebody retired the probe key, that it is refused for this
// reason proves that the node serves just as well.
func (f *forming) prove(ctx context.Context, p place) error {
	c, err := f.client(userName, p.API)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = c.Sign(ctx, &vaultpb.SignRequest{Name: probeKey, Data: []byte("conclave dev")})
	if kind.Of(err) == kind.KeyState {
		return nil
	}
	return err
}

func (f *forming) environment(context.Context) error {
	return errors.Join(f.writeEnv("env.sh", adminName, f.places), f.writeEnv("user.env.sh", userName, f.places))
}
