package cli

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// instead of what is too large, by what is done with it.
const (
	insteadSign    = "openssl dgst -sha256 -binary FILE | conclave sign NAME --raw-digest --in -"
	insteadMAC     = "MAC a digest of the file: openssl dgst -sha256 -binary FILE | conclave mac NAME --in -"
	insteadEncrypt = "conclave datakey NAME   (encrypt the file with that key, and keep its ciphertext beside it)"
)

// signed are the flags that say what is, or was, signed.
type signed struct {
	in     string
	digest bool
	scheme string
}

func (s *signed) flags(c *cobra.Command) {
	inFlag(c, &s.in)
	c.Flags().BoolVar(&s.digest, "raw-digest", false, "the input is the raw digest of the message, by the scheme's hash")
	c.Flags().StringVar(&s.scheme, "scheme", "", "signature scheme; without it the algorithm's usual one")
	complete(c, "scheme", schemes()...)
}

func schemes() []string {
	var all []string
	for _, a := range hsm.Algorithms() {
		for _, s := range a.Schemes() {
			if !slices.Contains(all, string(s)) {
				all = append(all, string(s))
			}
		}
	}
	return all
}

func inFlag(c *cobra.Command, in *string) {
	c.Flags().StringVar(in, "in", standardStream, "input `file`; - is stdin")
}

// digestSizes are those of the hashes of the schemes, in bytes.
var digestSizes = []int{sha256.Size, sha512.Size384, sha512.Size}

func (s *signed) read(e *Env) ([]byte, error) {
	data, err := e.readInput(s.in, maxMessage, insteadSign)
	if err == nil && s.digest && !slices.Contains(digestSizes, len(data)) { // which of them fits is the key's and the node's to say
		return nil, badArgument(fmt.Sprintf("--raw-digest needs the 32, 48 or 64 raw bytes of a SHA-256, SHA-384 or SHA-512 digest, the input has %d", len(data)),
			"openssl dgst -sha256 -binary FILE   (not its hexadecimal form)")
	}
	return data, err
}

func (e *Env) signCommand() *cobra.Command {
	var what signed
	c := e.keyArg("sign", "Sign a message or a digest", func(cmd *cobra.Command, c *client.Client, name string) error {
		data, err := what.read(e)
		if err != nil {
			return err
		}
		reply, err := c.Sign(cmd.Context(), &vaultpb.SignRequest{Name: name, Data: data, Prehashed: what.digest, Scheme: what.scheme})
		if err != nil {
			return err
		}
		return e.Print(cmd, reply)
	})
	what.flags(c)
	return c
}

func (e *Env) verifyCommand() *cobra.Command {
	var what signed
	var signature string
	req := &vaultpb.VerifyRequest{}
	c := e.keyArg("verify", "Verify a signature; exit code 9 if it is not valid", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Signature, err = decodeBase64("signature", signature); err != nil {
			return err
		}
		if req.Data, err = what.read(e); err != nil {
			return err
		}
		req.Name, req.Prehashed, req.Scheme = name, what.digest, what.scheme
		return e.verdict(c.Verify(cmd.Context(), req))
	})
	what.flags(c)
	c.Flags().StringVar(&signature, "signature", "", "in `base64`, as sign prints it")
	c.Flags().Uint32Var(&req.Version, "version", 0, "of the key; 0: whichever verifies")
	e.completeFlag(c, "version", e.keyVersions)
	required(c, "signature")
	return c
}

func (e *Env) macCommand() *cobra.Command {
	var in string
	c := e.keyArg("mac", "Make a message authentication code", func(cmd *cobra.Command, c *client.Client, name string) error {
		data, err := e.readInput(in, maxMessage, insteadMAC)
		if err != nil {
			return err
		}
		reply, err := c.Mac(cmd.Context(), &vaultpb.MacRequest{Name: name, Data: data})
		if err != nil {
			return err
		}
		return e.Print(cmd, reply)
	})
	inFlag(c, &in)
	return c
}

func (e *Env) verifyMacCommand() *cobra.Command {
	var in, mac string
	req := &vaultpb.VerifyMacRequest{}
	c := e.keyArg("verify-mac", "Verify a message authentication code; exit code 9 if it is not valid", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Mac, err = decodeBase64("mac", mac); err != nil {
			return err
		}
		if req.Data, err = e.readInput(in, maxMessage, insteadMAC); err != nil {
			return err
		}
		req.Name = name
		return e.verdict(c.VerifyMac(cmd.Context(), req))
	})
	inFlag(c, &in)
	c.Flags().StringVar(&mac, "mac", "", "in `base64`, as mac prints it")
	c.Flags().Uint32Var(&req.Version, "version", 0, "of the key; 0: whichever verifies")
	e.completeFlag(c, "version", e.keyVersions)
	required(c, "mac")
	return c
}

// verdict prints what a verification found, also where it found that the input is not valid: a script that reads the object must
// see "valid": false and not nothing.
func (e *Env) verdict(reply *vaultpb.VerifyReply, err error) error {
	if reply == nil {
		return err
	}
	if reply.GetWarning() != "" {
		e.say("warning: %s", reply.GetWarning())
	}
	if failed := e.print(reply, nil); failed != nil {
		return failed
	}
	return err
}
