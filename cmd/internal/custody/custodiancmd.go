package custody

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/ceremony"
	"github.com/conclave-vault/conclave/vault/wholefile"
)

// CustodianCommand is "conclave custodian": a custodian's own identity. It needs no cluster.
func CustodianCommand(env Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "custodian",
		Short: "Make and show a custodian's identity",
		Long: `A custodian holds one share of the master secret. The identity file opens the share and signs for the custodian: keep it,
with its passphrase, where only you reach it. The file beside it that ends in .pub is for whoever starts the genesis.`,
	}
	cmd.AddCommand(newCommand(env), showCommand(env))
	return cmd
}

// custodianView is a custodian as it is printed.
type custodianView struct {
	Name       string      `json:"name"`
	Recipient  string      `json:"recipient"`
	SigningKey []byte      `json:"signing_key"`
	Card       string      `json:"card"`
	Identity   string      `json:"identity,omitempty"`
	Public     string      `json:"public,omitempty"`
	Encrypted  bool        `json:"encrypted"`
	Clusters   []pinView   `json:"clusters"`
	Shares     []shareView `json:"shares"`
}

type pinView struct {
	Cluster string `json:"cluster"`
	Roster  string `json:"roster_sha256"`
}

type shareView struct {
	Cluster    string `json:"cluster"`
	Generation uint32 `json:"generation"`
	Ceremony   string `json:"ceremony"`
}

func viewOf(c fsm.Custodian) custodianView {
	return custodianView{
		Name: string(c.Name), Recipient: c.Recipient, SigningKey: c.SigningKey, Card: ceremony.EncodePublic(c),
		Clusters: []pinView{}, Shares: []shareView{},
	}
}

func identityView(id *ceremony.Identity) custodianView {
	v := viewOf(id.Public())
	for _, p := range id.Pins() {
		v.Clusters = append(v.Clusters, pinView{p.ClusterID, hex.EncodeToString(p.Roster[:])})
	}
	for _, s := range id.Shares() {
		v.Shares = append(v.Shares, shareView{s.ClusterID, s.Generation, string(s.Ceremony)})
	}
	return v
}

func newCommand(env Env) *cobra.Command {
	var name, out string
	var phrase passphraseFlags
	cmd := &cobra.Command{
		Use:   "new --name NAME --out FILE",
		Short: "Make an identity: FILE is secret, FILE.pub is public",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			view, err := makeIdentity(cmd, env, name, out, &phrase)
			if err != nil {
				return err
			}
			return env.Print(cmd, view)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the custodian's name, as the roster will have it")
	cmd.Flags().StringVar(&out, "out", "", "new `file` for the identity")
	phrase.register(cmd)
	return cmd
}

func makeIdentity(cmd *cobra.Command, env Env, name, out string, phrase *passphraseFlags) (custodianView, error) {
	if name == "" || out == "" {
		return custodianView{}, badUsage("--name and --out are needed")
	}
	if err := ceremony.CheckName(fsm.CustodianName(name)); err != nil {
		return custodianView{}, badUsage("%v", err)
	}
	public := out + ".pub"
	for _, path := range []string{out, public} { // before a person chooses a passphrase for nothing
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return custodianView{}, badUsage("%s exists already and is not overwritten", path)
		}
	}
	chosen, err := phrase.choose(cmd, env)
	defer clear(chosen)
	if err != nil {
		return custodianView{}, err
	}
	id, err := writeIdentity(name, out, public, chosen)
	if err != nil {
		return custodianView{}, err
	}
	if len(chosen) == 0 {
		warn(env.Stderr(), "warning: %s is not encrypted: whoever reads it holds your share", out)
	}
	view := viewOf(id)
	view.Identity, view.Public, view.Encrypted = out, public, len(chosen) > 0
	return view, nil
}

func warn(w io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(w, format+"\n", args...) // stderr is where an error would go
}

func writeIdentity(name, path, public string, phrase []byte) (fsm.Custodian, error) {
	id, err := ceremony.NewIdentity(name)
	if err != nil {
		return fsm.Custodian{}, err
	}
	defer id.Wipe()
	if err := id.Create(path, phrase); err != nil {
		return fsm.Custodian{}, err
	}
	card := id.Public()
	if err := wholefile.Create(public, []byte(ceremony.EncodePublic(card)+"\n"), 0o644); err != nil {
		// Nobody knows the identity yet, so nothing is lost with it.
		return fsm.Custodian{}, errors.Join(err, os.Remove(path))
	}
	return card, nil
}

func showCommand(env Env) *cobra.Command {
	var phrase passphraseFlags
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "Show the public half of an identity or card, and which shares it holds",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			view, err := showFile(env, args[0], &phrase)
			if err != nil {
				return err
			}
			return env.Print(cmd, view)
		},
	}
	phrase.register(cmd)
	return cmd
}

func showFile(env Env, path string, phrase *passphraseFlags) (custodianView, error) {
	if c, err := readCard(path); err == nil {
		view := viewOf(c)
		view.Public = path
		return view, nil
	}
	ask, wipe := phrase.source(env, func() string { return path })
	defer wipe()
	h, err := OpenHolder(path, ask)
	if err != nil {
		return custodianView{}, err
	}
	defer h.Wipe()
	view := identityView(h.Identity)
	view.Identity, view.Encrypted = path, len(h.passphrase) > 0
	return view, nil
}

// cardBytes is more than a card has: what is longer is none, and is not read to its end.
const cardBytes = 1024

func readCard(path string) (fsm.Custodian, error) {
	f, err := os.Open(path)
	if err != nil {
		return fsm.Custodian{}, fmt.Errorf("reading a public card: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, cardBytes))
	if err != nil {
		return fsm.Custodian{}, fmt.Errorf("reading a public card: %w", err)
	}
	defer clear(content) // it may be an identity, given by mistake
	c, err := ceremony.ParsePublic(content)
	if err != nil {
		return fsm.Custodian{}, fmt.Errorf("reading %s: %w", path, err)
	}
	return c, nil
}
