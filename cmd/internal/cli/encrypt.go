package cli

import (
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ciphered are the flags of encrypt and decrypt.
type ciphered struct {
	in, out string
	context []string
}

func (f *ciphered) flags(c *cobra.Command) {
	inFlag(c, &f.in)
	outFlag(c, &f.out)
	contextFlag(c, &f.context)
}

func contextFlag(c *cobra.Command, context *[]string) {
	c.Flags().StringArrayVar(context, "context", nil, "`name=value`, repeatable: the same must be given to decrypt; it is not stored and no secret")
}

func (e *Env) encryptCommand() *cobra.Command {
	var f ciphered
	c := e.keyArg("encrypt", "Encrypt up to 1 MiB (with an rsa-*-oaep key: a key of up to 190, 318 or 446 bytes)", func(cmd *cobra.Command, c *client.Client, name string) error {
		context, err := contextOf(f.context)
		if err != nil {
			return err
		}
		data, err := e.readInput(f.in, maxMessage, insteadEncrypt)
		if err != nil {
			return err
		}
		defer clear(data)
		reply, err := c.Encrypt(cmd.Context(), &vaultpb.EncryptRequest{Name: name, Plaintext: data, Context: context})
		if err != nil {
			return err
		}
		return e.deliver(cmd, reply, "ciphertext", reply.GetCiphertext(), f.out)
	})
	f.flags(c)
	return c
}

func (e *Env) decryptCommand() *cobra.Command {
	var f ciphered
	req := &vaultpb.DecryptRequest{}
	c := e.keyArg("decrypt", "Decrypt what encrypt made, or any program with the public half; exit code 9 if it was changed or the context is another", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Context, err = contextOf(f.context); err != nil {
			return err
		}
		if req.Ciphertext, err = e.readInput(f.in, maxCiphertext, ""); err != nil {
			return err
		}
		req.Name = name
		reply, err := c.Decrypt(cmd.Context(), req)
		if err != nil {
			return err
		}
		defer clear(reply.GetPlaintext())
		return e.deliver(cmd, reply, "plaintext", reply.GetPlaintext(), f.out)
	})
	f.flags(c)
	c.Flags().StringVar(&req.Reason, "reason", "", "why, where the key's class allows decrypting while suspended")
	c.Flags().Uint32Var(&req.Version, "version", 0, "of an rsa-*-oaep key; 0: whichever of the newest 8 opens it. Other ciphertexts name theirs")
	e.completeFlag(c, "version", e.keyVersions)
	return c
}

func (e *Env) rewrapCommand() *cobra.Command {
	var f ciphered
	req := &vaultpb.RewrapRequest{}
	c := e.keyArg("rewrap", "Protect a ciphertext of an AES-GCM key anew, with the primary version; the plaintext does not leave the node", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Context, err = contextOf(f.context); err != nil {
			return err
		}
		if req.Ciphertext, err = e.readInput(f.in, maxCiphertext, ""); err != nil {
			return err
		}
		req.Name = name
		reply, err := c.Rewrap(cmd.Context(), req)
		if err != nil {
			return err
		}
		return e.deliver(cmd, reply, "ciphertext", reply.GetCiphertext(), f.out)
	})
	f.flags(c)
	return c
}

func (e *Env) dataKeyCommand() *cobra.Command {
	var pairs []string
	c := e.keyArg("datakey", "Make a 32-byte key for use outside, in clear and encrypted under the named key", func(cmd *cobra.Command, c *client.Client, name string) error {
		context, err := contextOf(pairs)
		if err != nil {
			return err
		}
		reply, err := c.GenerateDataKey(cmd.Context(), &vaultpb.GenerateDataKeyRequest{Name: name, Context: context})
		if err != nil {
			return err
		}
		defer clear(reply.GetPlaintext())
		return e.Print(cmd, reply)
	})
	contextFlag(c, &pairs)
	return c
}

// deliver hands out the result of a cipher: raw bytes to a file or stdout. Where the object is asked for, the bytes are in
// it in base64, unless they went to a file: then it names the file instead.
func (e *Env) deliver(cmd *cobra.Command, reply proto.Message, field string, data []byte, out string) error {
	if out == standardStream && !e.structured() {
		return e.writeOutput(out, data)
	}
	o := message(reply.ProtoReflect())
	if out != standardStream {
		if err := e.writeOutput(out, data); err != nil {
			return err
		}
		o = o.without(field).with("out", out)
	}
	if e.structured() {
		return e.Print(cmd, o)
	}
	e.say("%d bytes written to %s (key %s, version %v, node %s)", len(data), out, o.get("key"), o.get("version"), o.get("node"))
	return nil
}
