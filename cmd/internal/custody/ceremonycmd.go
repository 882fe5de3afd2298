package custody

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// CeremonyCommand is "conclave ceremony": starting ceremonies and taking part in them.
func CeremonyCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ceremony",
		Short: "Hold ceremonies: genesis, unseal, a new roster",
	}
	cmd.AddCommand(genesisCommand(env), unsealCommand(env), rosterCommand(env), statusCommand(env), abortCommand(env))
	return cmd
}

// identityFlags name the identities that take part.
type identityFlags struct {
	files  []string
	phrase passphraseFlags
}

func (f *identityFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.files, "identity", nil, "identity `file` of a custodian who takes part here (repeatable)")
	f.phrase.register(cmd)
}

// open reads the identities; wipe ends all that were read, also after an error.
func (f *identityFlags) open(env Env) (holders []*Holder, wipe func(), err error) {
	path := ""
	ask, wipePhrase := f.phrase.source(env, func() string { return path })
	wipe = func() {
		wipePhrase()
		for _, h := range holders {
			h.Wipe()
		}
	}
	for _, path = range f.files {
		h, err := OpenHolder(path, ask)
		if err != nil {
			return holders, wipe, err
		}
		holders = append(holders, h)
	}
	return holders, wipe, nil
}

func progress(env Env) Progress {
	return func(text string) { warn(env.Stderr(), "%s", text) }
}

func dial(ctx context.Context, env Env) (vaultpb.CeremoniesClient, error) {
	conn, err := env.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return vaultpb.NewCeremoniesClient(conn), nil
}

type genesisFlags struct {
	identityFlags
	threshold  uint32
	custodians []string
	ttl        time.Duration
	roster     string
}

func genesisCommand(env Env) *cobra.Command {
	var f genesisFlags
	cmd := &cobra.Command{
		Use:   "genesis [--threshold K --custodian PUBFILE…] [--identity FILE…]",
		Short: "Make the master secret and deal its shares",
		Long: `With --threshold and --custodian an administrator opens the ceremony. With --identity a custodian takes part in the open one:
contributes entropy, verifies and stores the share, and acknowledges it. Each custodian runs this on an own machine; all of
them must be there. Compare the roster's SHA-256 with the others, or give it with --roster.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return err
			}
			held, err := holdGenesis(cmd.Context(), env, &f)
			if err != nil {
				return err
			}
			return env.Print(cmd, newCeremonyView(held))
		},
	}
	cmd.Flags().Uint32Var(&f.threshold, "threshold", 0, "open the ceremony: how many custodians unseal")
	cmd.Flags().StringArrayVar(&f.custodians, "custodian", nil, "public card `file` of a custodian (repeatable)")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "how long the ceremony stays open (0: 1 hour)")
	cmd.Flags().StringVar(&f.roster, "roster", "", "SHA-256 that the roster must have, in hexadecimal")
	f.register(cmd)
	return cmd
}

func (f *genesisFlags) check() error {
	switch {
	case f.threshold == 0 && len(f.files) == 0:
		return badUsage("give --threshold and --custodian to open the genesis, --identity to take part, or both")
	case (f.threshold > 0) != (len(f.custodians) > 0):
		return badUsage("--threshold and --custodian go together")
	case int(f.threshold) > len(f.custodians):
		return badUsage("a threshold of %d cannot be met by %d custodians", f.threshold, len(f.custodians))
	case f.ttl < 0:
		return badUsage("--ttl must not be negative")
	}
	return nil
}

func holdGenesis(ctx context.Context, env Env, f *genesisFlags) (*vaultpb.Ceremony, error) {
	cards, err := readCards(f.custodians)
	if err != nil {
		return nil, err
	}
	holders, wipe, err := f.open(env)
	defer wipe()
	if err != nil {
		return nil, err
	}
	api, err := dial(ctx, env)
	if err != nil {
		return nil, err
	}
	var held *vaultpb.Ceremony
	if f.threshold > 0 {
		if held, err = StartGenesis(ctx, api, f.threshold, cards, f.ttl); err != nil {
			return nil, err
		}
		progress(env).sayf("genesis %s is open", held.GetId())
	}
	if len(holders) == 0 {
		return held, nil
	}
	return Genesis(ctx, api, holders, Options{Roster: f.roster}, progress(env))
}

func readCards(paths []string) ([]fsm.Custodian, error) {
	var cards []fsm.Custodian
	for _, path := range paths {
		c, err := readCard(path)
		if err != nil {
			return nil, badUsage("%v", err)
		}
		cards = append(cards, c)
	}
	return cards, nil
}

func unsealCommand(env Env) *cobra.Command {
	var f identityFlags
	cmd := &cobra.Command{
		Use:   "unseal --identity FILE…",
		Short: "Give your share to every node",
		Long: `The share is encrypted to each node's own key; any node may be asked, and relays what it cannot read. A node is unsealed as
soon as it has as many shares as the threshold.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := holdUnseal(cmd.Context(), env, &f)
			if report != nil && len(report.Nodes) > 0 {
				err = errors.Join(err, env.Print(cmd, report))
			}
			return err
		},
	}
	f.register(cmd)
	return cmd
}

func holdUnseal(ctx context.Context, env Env, f *identityFlags) (*UnsealReport, error) {
	if len(f.files) == 0 {
		return nil, badUsage("--identity is needed")
	}
	holders, wipe, err := f.open(env)
	defer wipe()
	if err != nil {
		return nil, err
	}
	api, err := dial(ctx, env)
	if err != nil {
		return nil, err
	}
	return Unseal(ctx, api, holders, Options{}, progress(env))
}

func rosterCommand(env Env) *cobra.Command {
	var f identityFlags
	var admit []string
	cmd := &cobra.Command{
		Use:   "roster --admit NODE… --identity FILE…",
		Short: "Put nodes into the roster, so that they get shares",
		Long: `A node that joined gets no share before the custodians signed a roster with its key. The first custodian opens the ceremony,
the others sign it by the same command; with as many signatures as the threshold it is in force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			held, err := holdRoster(cmd.Context(), env, &f, admit)
			if err != nil {
				return err
			}
			return env.Print(cmd, newCeremonyView(held))
		},
	}
	cmd.Flags().StringArrayVar(&admit, "admit", nil, "`node` to put into the roster with the key it has now (repeatable)")
	f.register(cmd)
	return cmd
}

func holdRoster(ctx context.Context, env Env, f *identityFlags, admit []string) (*vaultpb.Ceremony, error) {
	if len(f.files) == 0 || len(admit) == 0 {
		return nil, badUsage("--admit and --identity are needed")
	}
	holders, wipe, err := f.open(env)
	defer wipe()
	if err != nil {
		return nil, err
	}
	conn, err := env.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return Roster(ctx, vaultpb.NewCeremoniesClient(conn), vaultpb.NewClusterClient(conn), holders, admit, Options{}, progress(env))
}

func statusCommand(env Env) *cobra.Command {
	var purpose string
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "Show a ceremony: the latest one, or the latest of a purpose",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := &vaultpb.GetCeremonyRequest{Purpose: purpose}
			if len(args) > 0 {
				in.Id = args[0]
			}
			api, err := dial(cmd.Context(), env)
			if err != nil {
				return err
			}
			reply, err := api.GetCeremony(cmd.Context(), in)
			if err != nil {
				return fmt.Errorf("reading the ceremony: %w", err)
			}
			return env.Print(cmd, newCeremonyView(reply.GetCeremony()))
		},
	}
	cmd.Flags().StringVar(&purpose, "purpose", "", "genesis, unseal or roster")
	return cmd
}

func abortCommand(env Env) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "abort ID --reason TEXT",
		Short: "End an open ceremony; the reason goes into its minutes",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return badUsage("--reason is needed: it goes into the minutes")
			}
			request, err := newRequestID()
			if err != nil {
				return err
			}
			api, err := dial(cmd.Context(), env)
			if err != nil {
				return err
			}
			in := &vaultpb.AbortCeremonyRequest{RequestId: request, Ceremony: args[0], Reason: reason}
			reply, err := api.AbortCeremony(cmd.Context(), in)
			if err != nil {
				return fmt.Errorf("aborting the ceremony: %w", err)
			}
			return env.Print(cmd, newCeremonyView(reply.GetCeremony()))
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	return cmd
}
