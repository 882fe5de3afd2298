package token

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/fips"
	"github.com/conclave-vault/conclave/hsm/pkcs11"
	"github.com/conclave-vault/conclave/hsm/soft"
	"github.com/conclave-vault/conclave/vault/guard"
)

// SoftFile is the embedded token's file in a node's data folder.
const SoftFile = "token.keystore"

// Token is an opened token with the port to its keys, which only the guard uses.
type Token interface {
	hsm.Token
	guard.KeyUse
}

// Open opens the node's token. An error that is fs.ErrNotExist says that there is none, or no keys of a node on it.
func Open(cfg config.Config, log *slog.Logger) (Token, error) {
	return withPIN(cfg, func(pin []byte) (Token, error) { return open(cfg, pin, log) })
}

// Look opens the node's token for a program that is not its server: a device's PIN is not tried where a wrong one was given before. With
// thorough a device also generates what takes minutes.
func Look(cfg config.Config, thorough bool) (Token, error) {
	return withPIN(cfg, func(pin []byte) (Token, error) {
		if cfg.HSM.Type != config.PKCS11Type {
			return open(cfg, pin, slog.New(slog.DiscardHandler))
		}
		opt := options(cfg, slog.New(slog.DiscardHandler))
		opt.Careful, opt.Thorough = true, thorough
		return found(pkcs11.Open(opt, pin))
	})
}

// OpenOrCreate opens the node's token, or makes its keys if there are none: for a node that is about to found or to join a cluster.
func OpenOrCreate(cfg config.Config, log *slog.Logger) (Token, error) {
	return withPIN(cfg, func(pin []byte) (Token, error) {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, err
		}
		t, err := open(cfg, pin, log)
		switch {
		case errors.Is(err, pkcs11.ErrNoKeys):
			return found(pkcs11.Create(options(cfg, log), pin))
		case errors.Is(err, fs.ErrNotExist) && cfg.HSM.Type == config.SoftType:
			return found(soft.Create(filepath.Join(cfg.DataDir, SoftFile), pin, soft.Options{Argon2: cfg.HSM.Soft.Argon2.Cost()}))
		}
		return t, err
	})
}

// Initialize makes a token on the first free slot of the module (C_InitToken), with the label and the user PIN of the configuration.
// hsm.ErrTokenExists if there is one of that label.
func Initialize(cfg config.Config, soPIN []byte, log *slog.Logger) error {
	if cfg.HSM.Type != config.PKCS11Type {
		return fmt.Errorf("hsm.type is %s: only a PKCS#11 token is initialised by itself, the embedded one is made by conclave init or by joining", cfg.HSM.Type)
	}
	pin, err := cfg.HSM.PIN.Read()
	if err != nil {
		return err
	}
	defer clear(pin)
	return pkcs11.Initialize(options(cfg, log), soPIN, pin)
}

func withPIN(cfg config.Config, use func(pin []byte) (Token, error)) (Token, error) {
	pin, err := cfg.HSM.PIN.Read()
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	t, err := use(pin)
	return gated(cfg, t, err)
}

func open(cfg config.Config, pin []byte, log *slog.Logger) (Token, error) {
	if cfg.HSM.Type == config.PKCS11Type {
		return found(pkcs11.Open(options(cfg, log), pin))
	}
	return found(soft.Open(filepath.Join(cfg.DataDir, SoftFile), pin, soft.Options{}))
}

// found keeps a nil pointer from becoming a Token that is not nil.
func found[T Token](t T, err error) (Token, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}

// gated puts a token behind the gate that the configuration asks for.
func gated(cfg config.Config, t Token, err error) (Token, error) {
	if err != nil || !cfg.HSM.FIPS {
		return t, err
	}
	return fips.Gate(t), nil
}

func options(cfg config.Config, log *slog.Logger) pkcs11.Options {
	p := cfg.HSM.PKCS11
	return pkcs11.Options{
		Module: p.Module, Label: p.Token, Serial: p.Serial, Environment: p.Environment, Sessions: p.Sessions, Logger: log,
	}
}
