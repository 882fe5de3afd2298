package dev

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm"
)

// Kinds of HSM that a demonstration can have.
const (
	hsmSoft    = "soft"
	hsmSoftHSM = "softhsm"
)

// softHSMModules is where SoftHSM is looked for.
var softHSMModules = token.SoftHSMModules

// equip gives each node its kind of HSM. The first known ones have theirs already: a node's keys do not move.
func equip(places []place, known int, kinds []string) error {
	if len(kinds) > 1 && len(kinds) != len(places) {
		return fmt.Errorf("%w: --hsm names %d kinds for %d nodes; give one for all, or one for each", ErrOptions, len(kinds), len(places))
	}
	for i := range places {
		p := &places[i]
		kind := hsmSoft
		if len(kinds) != 0 {
			kind = kinds[min(i, len(kinds)-1)]
		}
		had := p.HSM
		if had == "" {
			had = hsmSoft
		}
		switch {
		case kind != hsmSoft && kind != hsmSoftHSM:
			return fmt.Errorf("%w: --hsm %q; use %s or %s", ErrOptions, kind, hsmSoft, hsmSoftHSM)
		case i < known && len(kinds) != 0 && kind != had:
			return fmt.Errorf("%w: %s has its keys in %s; start it with that, or give another --dir", ErrOptions, p.ID, had)
		case i >= known:
			p.HSM = kind
		}
	}
	return nil
}

// needModule finds SoftHSM's library if a node uses it.
func (d *dev) needModule() (string, error) {
	if !slices.ContainsFunc(d.places, func(p place) bool { return p.HSM == hsmSoftHSM }) {
		return "", nil
	}
	if d.opt.Module != "" {
		return filepath.Abs(d.opt.Module)
	}
	return token.FindSoftHSM(softHSMModules)
}

func (l layout) softHSM(id string) string { return filepath.Join(l.node(id), "softhsm") }

// hsm is the section of a node's configuration.
func (l layout) hsm(p place, module string) (map[string]any, error) {
	pin := map[string]string{"file": l.secret(p.ID + ".pin")}
	if p.HSM != hsmSoftHSM {
		return map[string]any{"type": config.SoftType, "pin": pin}, nil
	}
	env, err := token.SoftHSM(l.softHSM(p.ID))
	if err != nil {
		return nil, err
	}
	return map[string]any{"type": config.PKCS11Type, "pin": pin, "pkcs11": map[string]any{
		"module": module, "token": "conclave-" + p.ID, "environment": env,
	}}, nil
}

// makeToken initialises a node's SoftHSM token, in a folder of the node's own, unless that was done at an earlier start.
func (l layout) makeToken(p place) error {
	if p.HSM != hsmSoftHSM {
		return nil
	}
	so := l.secret(p.ID + ".so-pin")
	if err := writeRandom(so); err != nil {
		return err
	}
	cfg, err := config.Load(l.config(p.ID))
	if err != nil {
		return err
	}
	pin, err := config.ReadPrivate(so, 2*pinBytes)
	if err != nil {
		return err
	}
	defer clear(pin)
	err = token.Initialize(cfg, bytes.TrimSpace(pin), slog.New(slog.DiscardHandler))
	if errors.Is(err, hsm.ErrTokenExists) {
		return nil
	}
	return err
}
