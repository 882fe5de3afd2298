package cli

import (
	"encoding/pem"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

const (
	// maxPublicKeyFile bounds a file with a public key: the largest there is has a few KiB in PEM.
	maxPublicKeyFile = 64 << 10
	// maxEncapsulated bounds a KEM's ciphertext: that of ml-kem-768 has 1088 bytes.
	maxEncapsulated = 64 << 10
)

// outFlag is for results that are secrets.
func outFlag(c *cobra.Command, out *string) {
	c.Flags().StringVar(out, "out", standardStream, "output `file`, replaced in one step, for its owner alone; - is stdout")
}

func (e *Env) agreeCommand() *cobra.Command {
	var peer, out string
	req := &vaultpb.AgreeRequest{}
	c := e.keyArg("agree", "Agree with a peer's public key on a shared secret (ECDH): 32 raw bytes to derive a key from", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Peer, err = e.readPublicKey(peer); err != nil {
			return err
		}
		req.Name = name
		reply, err := c.Agree(cmd.Context(), req)
		if err != nil {
			return err
		}
		defer clear(reply.GetSecret())
		return e.deliver(cmd, reply, "secret", reply.GetSecret(), out)
	})
	c.Long = c.Short + `.

The secret is what SP 800-56A calls Z: no key yet. Put it through the key derivation function of your protocol, together with both public keys.
The peer gets the same secret from its private key and  conclave key public NAME.`
	c.Flags().StringVar(&peer, "peer", "", "`file` with the peer's public key on the same curve: SubjectPublicKeyInfo, PEM or DER; - is stdin")
	outFlag(c, &out)
	e.versionFlag(c, &req.Version, "of the key; 0: the primary one")
	required(c, "peer")
	return c
}

// versionFlag names a version of the key, where its input does not.
func (e *Env) versionFlag(c *cobra.Command, version *uint32, usage string) {
	c.Flags().Uint32Var(version, "version", 0, usage)
	e.completeFlag(c, "version", e.keyVersions)
}

// readPublicKey reads a SubjectPublicKeyInfo, PEM or DER, and gives DER. Whether it is a key for this use is the node's to say.
func (e *Env) readPublicKey(path string) ([]byte, error) {
	data, err := e.readInput(path, maxPublicKeyFile, "")
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return data, nil
	case block.Type != "PUBLIC KEY":
		return nil, badArgument("the file with the public key has a PEM block "+block.Type+", and no PUBLIC KEY", "openssl pkey -in FILE -pubout   (of a private key)")
	case len(rest) != 0:
		return nil, badArgument("the file with the public key has more in it than one key", "")
	}
	return block.Bytes, nil
}

func (e *Env) encapsulateCommand() *cobra.Command {
	var ciphertext, key string
	c := e.keyArg("encapsulate", "Make a shared key of 32 bytes for the holder of a KEM key, and the ciphertext that leads to it", func(cmd *cobra.Command, c *client.Client, name string) error {
		reply, err := c.Encapsulate(cmd.Context(), &vaultpb.EncapsulateRequest{Name: name})
		if err != nil {
			return err
		}
		defer clear(reply.GetSharedKey())
		o := message(reply.ProtoReflect())
		for _, file := range []struct {
			path, field, as string
			data            []byte
		}{{key, "shared_key", "key_out", reply.GetSharedKey()}, {ciphertext, "ciphertext", "out", reply.GetCiphertext()}} {
			if file.path == "" {
				continue
			}
			if err := e.writeOutput(file.path, file.data); err != nil {
				return err
			}
			o = o.without(file.field).with(file.as, file.path)
		}
		return e.Print(cmd, o)
	})
	c.Long = c.Short + `.

It needs the public half only: anybody who has it (conclave key public NAME) can do the same elsewhere. The ciphertext names neither key nor
version: keep the version beside it for conclave decapsulate NAME --version N.`
	c.Flags().StringVar(&ciphertext, "out", "", "write the ciphertext raw to this `file`, and not into the answer")
	c.Flags().StringVar(&key, "key-out", "", "write the shared key raw to this `file`, for its owner alone, and not into the answer")
	return c
}

func (e *Env) decapsulateCommand() *cobra.Command {
	var in, out string
	req := &vaultpb.DecapsulateRequest{}
	c := e.keyArg("decapsulate", "Get the shared key that a KEM's ciphertext leads to", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if req.Ciphertext, err = e.readInput(in, maxEncapsulated, ""); err != nil {
			return err
		}
		req.Name = name
		reply, err := c.Decapsulate(cmd.Context(), req)
		if err != nil {
			return err
		}
		defer clear(reply.GetSharedKey())
		return e.deliver(cmd, reply, "shared_key", reply.GetSharedKey(), out)
	})
	c.Long = c.Short + `.

A ciphertext that was changed, or was made for another version, leads to another key and to no error (FIPS 203): what is encrypted under the
shared key shows whether it is the right one.`
	inFlag(c, &in)
	outFlag(c, &out)
	e.versionFlag(c, &req.Version, "of the key, as encapsulate prints it")
	required(c, "version")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, where the key's class allows it while suspended")
	return c
}
