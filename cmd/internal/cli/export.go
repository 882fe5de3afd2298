package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func formFlag(c *cobra.Command, form *string, usage string) {
	c.Flags().StringVar(form, "form", "", "`"+strings.Join(hsm.FormNames(), "|")+"`: "+usage)
	complete(c, "form", hsm.FormNames()...)
}

func exportableFlag(c *cobra.Command, key *vaultpb.CreateKeyRequest) {
	c.Flags().BoolVar(&key.Exportable, "exportable", false, "its material may be exported (key export), where its class permits; what was not made so never is")
}

func (e *Env) keyExport() *cobra.Command {
	req := &vaultpb.ExportKeyRequest{}
	var to, out string
	c := e.keyArg("export", "Hand out a version's material, wrapped to a recipient's public key", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Recipient, err = e.readRecipient(to, req.GetForm()); err != nil {
			return err
		}
		req.Name, req.RequestId = name, e.flags.requestID
		reply, err := c.ExportKey(cmd.Context(), req)
		if err != nil {
			return err
		}
		return e.deliver(cmd, reply, "wrapped", reply.GetWrapped(), out)
	})
	c.Flags().StringVar(&to, "to", "", "`file` with the recipient's public key, as PEM: RSA from 3072 bits, or on P-256")
	c.Flags().StringVar(&out, "out", "", "`file` for the wrapped material, or -")
	formFlag(c, &req.Form, "what the recipient unwraps; without it that of the recipient's kind of key")
	c.Flags().Uint32Var(&req.Version, "version", 0, "of the key; 0: the primary one")
	e.completeFlag(c, "version", e.keyVersions)
	required(c, "to", "out")
	return c
}

// readRecipient finds mistakes here, where the file is.
func (e *Env) readRecipient(path, form string) ([]byte, error) {
	const instead = "PEM \"PUBLIC KEY\" of an RSA key from 3072 bits, or on P-256 (openssl pkey -pubout)"
	file, err := e.readInput(path, maxMaterial, instead)
	if err != nil {
		return nil, err
	}
	spki, err := publicDER(file)
	if err != nil {
		return nil, badArgument("the recipient's public key: "+err.Error(), instead)
	}
	var want hsm.Form
	if form != "" {
		if want, err = hsm.ParseForm(form); err != nil {
			return nil, badArgument(err.Error(), "")
		}
	}
	if _, err := hsm.ParseRecipient(spki, want); err != nil {
		return nil, badArgument(err.Error(), instead)
	}
	return spki, nil
}
