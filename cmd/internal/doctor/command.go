package doctor

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/vault"
)

// Env is what the command line gives this command.
type Env interface {
	// Print writes v to stdout in the format that the user chose.
	Print(cmd *cobra.Command, v any) error
	// Structured reports whether the user wants the object and not what is easiest to read.
	Structured() bool
	// Text writes lines for people to stdout, without what could steer a terminal.
	Text(text string) error
	// Getenv reads the environment.
	Getenv(name string) string
	// Credentials are where the cluster is and who the caller is, by flags and environment.
	Credentials() (addresses []string, ca, cert, key string)
}

// Command is `conclave doctor`.
func Command(env Env) *cobra.Command {
	var file string
	var strict bool
	cmd := &cobra.Command{
		Use:   "doctor [--config node.yaml]",
		Short: "Look for what stands in the way of a good node, and say what to do",
		Long: `Looks at this host as the node of --config (or CONCLAVE_CONFIG) finds it: configuration, data directory, clock source and its
synchronisation, ports and addresses, the PIN's file, memory lock, HSM, disk space and fsync, certificates; and at the cluster, with
the credentials of the environment. Without a configuration it looks at the credentials and the cluster alone.

It changes nothing, shows no secret, and may run beside the server and before its first start; run it as the user who runs the
server. Exit code 0: nothing failed; with --strict: nothing warned either; else 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = env.Getenv("CONCLAVE_CONFIG")
			}
			c := &checkup{host: thisHost()}
			c.caller.Addresses, c.caller.CA, c.caller.Cert, c.caller.Key = env.Credentials()
			report := newReport(file, "", strict, c.run(cmd.Context(), file))
			report.Node = c.cfg.Node
			return errors.Join(show(cmd, env, report), report.err())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (CONCLAVE_CONFIG)")
	cmd.Flags().BoolVar(&strict, "strict", false, "a warning fails too")
	return cmd
}

func show(cmd *cobra.Command, env Env, report Report) error {
	if env.Structured() {
		return env.Print(cmd, report)
	}
	return env.Text(report.text())
}

// checkup is one look at one host.
type checkup struct {
	host
	cfg       config.Config
	caller    Credentials
	member    *vault.Membership // nil: none
	notMember error             // why
	server    int               // pid of the node's running server; 0: none that the kernel shows
	unusable  bool              // the caller's credentials are not to be read
	shown     bool              // a server showed this node's certificate
}

// run makes all checks that apply.
func (c *checkup) run(ctx context.Context, file string) []Result {
	results := c.configuration(file)
	if results[0].Status == OK {
		results = append(results, c.node(ctx)...)
	}
	results = append(results, c.clientCredentials()...)
	return append(results, c.reach(ctx)...)
}

// configuration loads the file. Without it nothing is known of the node.
func (c *checkup) configuration(file string) []Result {
	const name = "configuration"
	if file == "" {
		return []Result{absent(name, "neither --config nor CONCLAVE_CONFIG: only the client's side is checked")}
	}
	problems, cfg := config.Problems(file)
	if len(problems) == 0 {
		c.cfg = cfg
		return []Result{good(name, "%s, node %s", file, cfg.Node)}
	}
	var results []Result
	for _, p := range problems {
		results = append(results, fail(name, p, "correct "+file+"; the checks of the node wait for it"))
	}
	return results
}

// node checks what the server of this configuration meets.
func (c *checkup) node(ctx context.Context) []Result {
	c.server = c.serverOf(c.cfg.DataDir)
	if m, err := node.LoadMembership(c.cfg.DataDir); err != nil {
		c.notMember = err
	} else {
		c.member = &m
	}
	results := []Result{c.dataDir()}
	results = append(results, c.disk()...)
	results = append(results, c.clocks()...)
	for _, p := range c.ports() {
		results = append(results, c.checkPort(ctx, p), c.checkAddress(ctx, p))
	}
	results = append(results, c.pin())
	results = append(results, c.memory()...)
	return append(results, checkHSM(ctx, c.cfg), c.nodeCertificate(), c.joinToken(), c.openFiles())
}

// firstCertificate is the first of a PEM file.
func firstCertificate(text []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("no PEM certificate is in it")
}
