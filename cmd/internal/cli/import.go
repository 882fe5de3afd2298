package cli

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/keywrap"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// maxMaterial bounds key files: the PEM of an RSA-4096 key has some 3300 bytes.
const maxMaterial = 16 << 10

func (e *Env) importKeyCommand() *cobra.Command {
	c := &cobra.Command{Use: "import-key", Short: "One-time keys of a node's HSM, to which key material is wrapped for an import"}
	c.AddCommand(e.importKeyCreate())
	return c
}

func (e *Env) importKeyCreate() *cobra.Command {
	req := &vaultpb.CreateImportKeyRequest{}
	out := ""
	c := e.keyArg("create", "Make an import key for one key to come", func(cmd *cobra.Command, c *client.Client, name string) error {
		req.Name = name
		reply, err := c.CreateImportKey(cmd.Context(), req)
		if err != nil {
			return err
		}
		if out != "" {
			if err := e.writeOutput(out, []byte(reply.GetPublicKey())); err != nil {
				return err
			}
		}
		return e.print(reply, nil)
	})
	c.ValidArgsFunction = cobra.NoFileCompletions // the name is new
	c.Flags().StringVar(&req.Algorithm, "algorithm", "", strings.Join(algorithms(), ", "))
	c.Flags().StringVar(&out, "out", "", "`file` for the public key, as PEM")
	formFlag(c, &req.Form, "how the material will be wrapped to it; without it rsa-aes")
	required(c, "algorithm")
	complete(c, "algorithm", algorithms()...)
	return c
}

func (e *Env) keyImport() *cobra.Command {
	req := &vaultpb.ImportKeyRequest{Key: &vaultpb.CreateKeyRequest{}}
	key, plan := req.Key, &planFlags{}
	var labels []string
	var wrapped, plain, form string
	c := e.keyArg("import", "Bring your own key, wrapped to an import key", func(cmd *cobra.Command, c *client.Client, name string) (err error) {
		if key.Labels, err = splitPairs("label", labels); err != nil {
			return err
		}
		if err = plan.create(key); err != nil {
			return err
		}
		key.Name, req.RequestId = name, e.flags.requestID
		if plain != "" {
			err = e.wrapHere(cmd, c, req, plain, form)
		} else {
			req.Wrapped, err = e.readInput(wrapped, hsm.MaxImport, "the output of conclave key wrap-for-import")
		}
		if err != nil {
			return err
		}
		return e.printKey(c.ImportKey(cmd.Context(), req))
	})
	c.ValidArgsFunction = cobra.NoFileCompletions // the name is new
	s := c.Flags()
	s.StringVar(&key.Algorithm, "algorithm", "", strings.Join(algorithms(), ", "))
	s.StringVar(&key.Class, "class", "standard", "which controls are forced on it; classes for hardware only take no imports")
	s.StringArrayVar(&labels, "label", nil, "`name=value`, repeatable; users=a,b lists who may use the key")
	s.StringVar(&req.ImportKey, "import-key", "", "`id` of the import key (key import-key create)")
	s.StringVar(&wrapped, "in", "", "`file` with the wrapped material, or -")
	s.StringVar(&plain, "plain-file", "", "`file` with the private key (PEM or PKCS#8 DER) or the raw secret: this program makes an import key and wraps it, and only the wrapped form leaves this machine")
	formFlag(c, &form, "with --plain-file: how it is wrapped; without it rsa-aes")
	exportableFlag(c, key)
	required(c, "algorithm")
	complete(c, "algorithm", algorithms()...)
	c.MarkFlagsOneRequired("in", "plain-file")
	c.MarkFlagsMutuallyExclusive("in", "plain-file")
	c.MarkFlagsMutuallyExclusive("import-key", "plain-file")
	c.MarkFlagsMutuallyExclusive("in", "form") // the import key has a form
	c.MarkFlagsRequiredTogether("in", "import-key")
	e.completeFlag(c, "class", e.classNames)
	plan.add(c)
	return c
}

// wrapHere makes an import key and wraps the material of a file to it. The file is read first: a mistake in it costs no import key.
func (e *Env) wrapHere(cmd *cobra.Command, c *client.Client, req *vaultpb.ImportKeyRequest, path, form string) error {
	material, err := e.readMaterial(path)
	if err != nil {
		return err
	}
	defer clear(material)
	k, err := c.CreateImportKey(cmd.Context(), &vaultpb.CreateImportKeyRequest{Name: req.GetKey().GetName(), Algorithm: req.GetKey().GetAlgorithm(), Form: form})
	if err != nil {
		return err
	}
	req.ImportKey = k.GetId()
	req.Wrapped, err = wrapTo([]byte(k.GetPublicKey()), material)
	return err
}

func (e *Env) wrapForImport() *cobra.Command {
	var to, in, out string
	c := &cobra.Command{
		Use: "wrap-for-import", Short: "Wrap key material to an import key, here and offline", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			public, err := e.readInput(to, maxMaterial, "the file of conclave key import-key create --out")
			if err != nil {
				return err
			}
			material, err := e.readMaterial(in)
			if err != nil {
				return err
			}
			defer clear(material)
			wrapped, err := wrapTo(public, material)
			if err != nil {
				return err
			}
			return e.writeOutput(out, wrapped)
		},
	}
	c.Flags().StringVar(&to, "to", "", "`file` with the import key's public half, as PEM")
	c.Flags().StringVar(&in, "in", "", "`file` with the private key (PEM or PKCS#8 DER) or the raw secret, or -")
	c.Flags().StringVar(&out, "out", "", "`file` for the wrapped material, or -")
	required(c, "to", "in", "out")
	return c
}

// readMaterial reads a key file down to what is wrapped: PKCS#8 DER of a PEM file, any other file as it is. The caller wipes it.
func (e *Env) readMaterial(path string) ([]byte, error) {
	file, err := e.readInput(path, maxMaterial, "one private key, or the raw secret")
	if err != nil {
		return nil, err
	}
	if len(file) == 0 {
		return nil, badArgument("the input is empty", "one private key, or the raw secret")
	}
	block, rest := pem.Decode(file)
	if block == nil {
		return file, nil
	}
	defer clear(file)
	if len(strings.TrimSpace(string(rest))) != 0 {
		clear(block.Bytes)
		return nil, badArgument("the file has more than one PEM block", "a file with the private key alone")
	}
	return pkcs8Of(block)
}

// pkcs8Of brings the older PEM forms into PKCS#8.
func pkcs8Of(block *pem.Block) ([]byte, error) {
	defer func() {
		if block.Type != "PRIVATE KEY" {
			clear(block.Bytes)
		}
	}()
	if _, encrypted := block.Headers["DEK-Info"]; encrypted || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, badArgument("the private key is encrypted with a password", "openssl pkey -in FILE, piped into this command")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		return block.Bytes, nil
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, badArgument(fmt.Sprintf("a PEM block %q is no private key", block.Type), "PEM \"PRIVATE KEY\" (openssl pkey -in FILE)")
	}
	if err != nil {
		return nil, badArgument("the private key cannot be read", "PEM \"PRIVATE KEY\" (openssl pkey -in FILE)") // the cause may show what it read
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// wrapTo wraps material to a PEM public key, in the form of its kind.
func wrapTo(public, material []byte) ([]byte, error) {
	key, err := parsePublic(public)
	if err != nil {
		return nil, badArgument("the import key's public half: "+err.Error(), "the file of conclave key import-key create --out")
	}
	if point, ok := key.(*ecdh.PublicKey); ok {
		return keywrap.WrapECDH(point, material)
	}
	return keywrap.WrapRSA(key.(*rsa.PublicKey), material)
}

// parsePublic gives an *rsa.PublicKey, or an *ecdh.PublicKey on P-256.
func parsePublic(file []byte) (any, error) {
	spki, err := publicDER(file)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		if point, err := key.ECDH(); err == nil && point.Curve() == ecdh.P256() {
			return point, nil
		}
	}
	return nil, errors.New("it is neither an RSA key nor one on P-256")
}

// publicDER is the SubjectPublicKeyInfo in a PEM file.
func publicDER(file []byte) ([]byte, error) {
	block, _ := pem.Decode(file)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New(`no PEM "PUBLIC KEY"`)
	}
	return block.Bytes, nil
}
