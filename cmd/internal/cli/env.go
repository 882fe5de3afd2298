package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
)

// Env is what commands have in common: the connection to the cluster, output, the terminal. Commands of other packages
// get it from Deps.Commands.
type Env struct {
	deps    Deps
	flags   globals
	started bool
	args    []string // of the command that was reached
}

// globals are the flags of every command.
type globals struct {
	addr, caCert, cert, key string
	discover                bool
	timeout                 time.Duration
	requestID               string
	minIndex                uint64
	output                  string
	field                   string
}

func (e *Env) globalFlags(f *pflag.FlagSet) {
	f.StringVar(&e.flags.addr, "addr", "", "addresses of nodes, comma separated (CONCLAVE_ADDR)")
	f.StringVar(&e.flags.caCert, "cacert", "", "`file` with the cluster's CA certificate (CONCLAVE_CACERT)")
	f.StringVar(&e.flags.cert, "cert", "", "`file` with your certificate (CONCLAVE_CERT)")
	f.StringVar(&e.flags.key, "key", "", "`file` with its private key (CONCLAVE_KEY)")
	f.BoolVar(&e.flags.discover, "discover", false, "also use the addresses that the cluster lists")
	f.DurationVar(&e.flags.timeout, "timeout", client.DefaultTimeout, "for one call, retries included")
	f.StringVar(&e.flags.requestID, "request-id", "", "`UUIDv7` of a write: repeats an earlier one instead of doing it again")
	f.Uint64Var(&e.flags.minIndex, "min-index", 0, "answer from a state that has applied this `index`, as an earlier reply showed it")
	f.StringVarP(&e.flags.output, "output", "o", formatTable, "table, json or yaml")
	f.StringVar(&e.flags.field, "field", "", "print one field alone, by its `path` in the object: versions.0.state")
}

// setting is a flag's value, else that of the environment variable.
func (e *Env) setting(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return e.deps.Getenv(variable)
}

func (e *Env) config() (client.Config, error) {
	cfg := client.Config{Addresses: e.addresses(), Discover: e.flags.discover, Timeout: e.flags.timeout, Token: e.flags.minIndex}
	ca := e.setting(e.flags.caCert, "CONCLAVE_CACERT")
	cert, key := e.setting(e.flags.cert, "CONCLAVE_CERT"), e.setting(e.flags.key, "CONCLAVE_KEY")
	switch {
	case len(cfg.Addresses) == 0:
		return cfg, badArgument("no address of a node is given", "export CONCLAVE_ADDR=host:port   (or --addr)")
	case ca == "":
		return cfg, badArgument("no CA certificate of the cluster is given", "export CONCLAVE_CACERT=FILE   (or --cacert)")
	case (cert == "") != (key == ""):
		return cfg, badArgument("a certificate and its private key come together, and one of them is not given", "export CONCLAVE_CERT=FILE CONCLAVE_KEY=FILE   (or --cert and --key)")
	case e.flags.timeout <= 0:
		return cfg, badArgument("--timeout must be longer than zero", "")
	}
	if err := cfg.LoadFiles(ca, cert, key); err != nil {
		return cfg, badArgument(err.Error(), "")
	}
	return cfg, nil
}

// Client makes a client from the flags and the environment. The caller closes it.
func (e *Env) Client() (*client.Client, error) {
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	c, err := client.New(cfg)
	if err != nil {
		return nil, badArgument(err.Error(), "")
	}
	return c, nil
}

// Dial makes a connection with failover and request ids, as the flags and the environment say. It lives until the program
// ends.
func (e *Env) Dial(context.Context) (grpc.ClientConnInterface, error) {
	c, err := e.Client()
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Stderr is where progress and messages go.
func (e *Env) Stderr() io.Writer { return e.deps.Stderr }

// say writes a message for people.
func (e *Env) say(format string, args ...any) {
	_, _ = fmt.Fprintln(e.deps.Stderr, printable(fmt.Sprintf(format, args...))) // stderr is where an error would go
}

// withClient makes a command's RunE of a function that needs the cluster.
func (e *Env) withClient(run func(cmd *cobra.Command, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := e.Client()
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd, c, args)
	}
}

// badArgument is an error of kind INVALID_ARGUMENT; try may be empty.
func badArgument(why, try string) error {
	var metadata map[string]string
	if try != "" {
		metadata = map[string]string{kind.MetaTry: try}
	}
	return kind.New(kind.InvalidArgument, why, metadata)
}

// Structured reports whether the user wants the object and not what is easiest to read.
func (e *Env) Structured() bool { return e.structured() }

// Text writes lines for people to stdout, without what could steer a terminal.
func (e *Env) Text(text string) error {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(printable(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return e.write(b.String())
}

// Getenv reads the environment that the program was given.
func (e *Env) Getenv(name string) string { return e.deps.Getenv(name) }

// Credentials are where the cluster is and who the caller is, as the flags and the environment say: addresses and files.
func (e *Env) Credentials() (addresses []string, ca, cert, key string) {
	return e.addresses(), e.setting(e.flags.caCert, "CONCLAVE_CACERT"), e.setting(e.flags.cert, "CONCLAVE_CERT"), e.setting(e.flags.key, "CONCLAVE_KEY")
}

func (e *Env) addresses() []string {
	var all []string
	for a := range strings.SplitSeq(e.setting(e.flags.addr, "CONCLAVE_ADDR"), ",") {
		if a = strings.TrimSpace(a); a != "" {
			all = append(all, a)
		}
	}
	return all
}
