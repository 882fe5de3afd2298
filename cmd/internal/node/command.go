package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/wholefile"
)

// ServerCommand is `conclave server`.
func ServerCommand(version string) *cobra.Command {
	var file string
	var lifeline int
	cmd := &cobra.Command{
		Use:   "server --config node.yaml",
		Short: "Run a node",
		Long: "Run a node until SIGINT or SIGTERM. It starts sealed (unless the configuration says seal: persistent): it replicates, votes and logs,\n" +
			"and serves keys once custodians have unsealed it with: conclave ceremony unseal",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if lifeline > 0 {
				ctx, stop = followLifeline(ctx, lifeline)
				defer stop()
			}
			log := newLogger(cfg.Log, cmd.ErrOrStderr())
			harden(log)
			return Run(ctx, cfg, version, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (YAML)")
	cmd.Flags().IntVar(&lifeline, "lifeline-fd", 0, "stop when this inherited file descriptor closes")
	_ = cmd.Flags().MarkHidden("lifeline-fd")
	_ = cmd.MarkFlagRequired("config")
	return cmd
}

// followLifeline ends the context when the other end of an inherited pipe is gone, however its owner died.
func followLifeline(ctx context.Context, fd int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	f := os.NewFile(uintptr(fd), "lifeline")
	if f == nil {
		cancel()
		return ctx, cancel
	}
	go func() { // ends with the process: a read of a pipe is what it waits for
		_, _ = io.Copy(io.Discard, f)
		cancel()
	}()
	return ctx, cancel
}

func newLogger(cfg config.Log, w io.Writer) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	opts := &slog.HandlerOptions{Level: levels[cfg.Level]}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts))
	}
	return slog.New(slog.NewJSONHandler(w, opts))
}

// InitCommand is `conclave init`.
func InitCommand() *cobra.Command {
	var file, admin, out string
	var life time.Duration
	var dev bool
	cmd := &cobra.Command{
		Use:   "init --config node.yaml --out DIR",
		Short: "Found a cluster on its first node",
		Long: "Found a cluster: make this node's token, the cluster's two certificate authorities (whose keys are kept only sealed to the node's HSM),\n" +
			"the gossip key, and the first administrator's certificate, which is written to DIR. Then run: conclave server --config node.yaml",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			files, err := Found(cfg, dev, admin, life, out)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The cluster is founded. Start its first node:\n  conclave server --config %s\nand talk to it:\n", file)
			fmt.Fprintf(cmd.OutOrStdout(), "export CONCLAVE_ADDR='%s'\nexport CONCLAVE_CACERT='%s'\nexport CONCLAVE_CERT='%s'\nexport CONCLAVE_KEY='%s'\n",
				cfg.API.Advertise, files.CA, files.Certificate, files.Key)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (YAML)")
	cmd.Flags().StringVar(&out, "out", "", "folder for the administrator's key and certificates (made if missing, 0700)")
	cmd.Flags().StringVar(&admin, "admin", "admin", "name of the first administrator")
	cmd.Flags().DurationVar(&life, "ttl", 90*24*time.Hour, "life of the administrator's certificate")
	cmd.Flags().BoolVar(&dev, "dev", false, "mark the cluster as one for demonstration, for ever")
	for _, f := range []string{"config", "out"} {
		_ = cmd.MarkFlagRequired(f)
	}
	return cmd
}

// Credentials are the files that a client needs.
type Credentials struct{ CA, Certificate, Key string }

// Found founds a cluster and writes the first administrator's files to dir. Nothing is overwritten, and a refusal leaves no file
// of the administrator's behind.
func Found(cfg config.Config, dev bool, admin string, life time.Duration, dir string) (Credentials, error) {
	if err := errors.Join(mayFound(cfg), fsm.ValidPersonName(admin)); err != nil { // admin becomes a file's name
		return Credentials{}, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Credentials{}, err
	}
	files := Credentials{CA: filepath.Join(dir, "ca.crt"), Certificate: filepath.Join(dir, admin+".crt"), Key: filepath.Join(dir, admin+".key")}
	if err := errors.Join(os.MkdirAll(dir, 0o700), files.absent()); err != nil {
		return files, err
	}
	key, err := newKey(files.Key)
	if err != nil {
		return files, err
	}
	err = Init(cfg, dev, admin, key, life, func(cert *x509.Certificate, ca []byte) error {
		return errors.Join(writeNew(files.Certificate, "CERTIFICATE", cert.Raw, 0o644), writeNew(files.CA, "CERTIFICATE", ca, 0o644))
	})
	if err != nil {
		return files, errors.Join(err, files.remove())
	}
	return files, nil
}

func (c Credentials) all() []string { return []string{c.Key, c.Certificate, c.CA} }

// absent: what is there is of another cluster, or of a founding that was interrupted.
func (c Credentials) absent() error {
	for _, path := range c.all() {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s: %w; nothing was overwritten: remove it if it is of a founding that failed, or give another folder", path, os.ErrExist)
		}
	}
	return nil
}

// remove takes back what belongs to no cluster. absent has said that nothing else can be meant.
func (c Credentials) remove() error {
	var errs []error
	for _, path := range c.all() {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// newKey makes the administrator's key, in a file of its own.
func newKey(path string) (crypto.PublicKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return key.Public(), writeNew(path, "PRIVATE KEY", der, 0o600)
}

func writeNew(path, kind string, der []byte, mode os.FileMode) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	defer clear(text)
	if err := wholefile.Create(path, text, mode); err != nil {
		return fmt.Errorf("%w; nothing was overwritten", err)
	}
	return nil
}
