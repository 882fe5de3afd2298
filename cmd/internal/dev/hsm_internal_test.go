package dev

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/conclave-vault/conclave/cmd/internal/config"
)

// TestEquip: one kind for all or one for each, kept over starts, and never changed for a node that has its keys.
func TestEquip(t *testing.T) {
	for name, c := range map[string]struct {
		had   string // the kinds of earlier starts, "-" for none recorded
		kinds string
		want  string // or the error, behind "!"
	}{
		"nothing said":       {"", "", "soft soft soft"},
		"one for all":        {"", "softhsm", "softhsm softhsm softhsm"},
		"one for each":       {"", "softhsm softhsm soft", "softhsm softhsm soft"},
		"too few":            {"", "softhsm soft", "!2 kinds for 3 nodes"},
		"unknown":            {"", "card", "!use soft or softhsm"},
		"kept":               {"softhsm softhsm soft", "", "softhsm softhsm soft"},
		"the same again":     {"softhsm softhsm softhsm", "softhsm", "softhsm softhsm softhsm"},
		"a change":           {"soft soft soft", "softhsm", "!n1 has its keys in soft"},
		"a change of one":    {"softhsm softhsm soft", "softhsm softhsm softhsm", "!n3 has its keys in soft"},
		"of an older layout": {"- - -", "softhsm", "!n1 has its keys in soft"},
	} {
		places := []place{{ID: "n1"}, {ID: "n2"}, {ID: "n3"}}
		had := strings.Fields(c.had)
		for i, kind := range had {
			places[i].HSM = strings.Trim(kind, "-")
		}
		err := equip(places, len(had), strings.Fields(c.kinds))
		if message, refused := strings.CutPrefix(c.want, "!"); refused {
			if !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), message) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if got := places[0].HSM + " " + places[1].HSM + " " + places[2].HSM; err != nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestSoftHSMConfiguration is what a node accepts, in awkward folders too.
func TestSoftHSMConfiguration(t *testing.T) {
	for _, name := range awkward {
		l := newLayout(t, filepath.Join(t.TempDir(), name))
		p := twoPlaces[0]
		p.HSM = hsmSoftHSM
		must(t, l.writeConfig(p, twoPlaces, true, "/lib/softhsm.so"))
		got, err := config.Load(l.config(p.ID))
		must(t, err)
		pkcs11 := got.HSM.PKCS11
		if got.HSM.Type != config.PKCS11Type || pkcs11.Module != "/lib/softhsm.so" || pkcs11.Token != "conclave-"+p.ID ||
			pkcs11.Environment["SOFTHSM2_CONF"] != filepath.Join(l.softHSM(p.ID), "softhsm2.conf") {
			t.Errorf("%q: %+v", name, got.HSM)
		}
	}
}

// TestNoSoftHSM: a module that is not there is an error that says what to install, and no other token takes its place.
func TestNoSoftHSM(t *testing.T) {
	kept := softHSMModules
	defer func() { softHSMModules = kept }()
	softHSMModules = []string{filepath.Join(t.TempDir(), "nothing.so")}
	d := &dev{places: []place{{ID: "n1", HSM: hsmSoftHSM}}}
	if path, err := d.needModule(); err == nil || !strings.Contains(err.Error(), "softhsm2") {
		t.Errorf("%q, %v", path, err)
	}
	d.places[0].HSM = hsmSoft
	if path, err := d.needModule(); err != nil || path != "" {
		t.Errorf("without need: %q, %v", path, err)
	}
}
