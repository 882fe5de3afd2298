package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) pkiCommand() *cobra.Command {
	c := &cobra.Command{Use: "pki", Short: "Certificates of administrators and users"}
	c.AddCommand(e.pkiIssue(), e.pkiList(), e.pkiRevoke())
	return c
}

// roles that a certificate can be issued for.
var roles = []string{"administrator", "user"}

var certificateColumns = columnsOf("serial", "role", "name", "not_before", "not_after", "revoked", "reason")

func (e *Env) pkiList() *cobra.Command {
	var pages paging
	c := &cobra.Command{
		Use: "list", Short: "List the certificates that the cluster has issued", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			return printList(cmd, e, &pages, list[vaultpb.ListCertificatesRequest, *vaultpb.ListCertificatesRequest, *vaultpb.ListCertificatesReply]{
				ask: c.ListCertificates, query: &vaultpb.ListCertificatesRequest{}, columns: certificateColumns,
				page: func(q *vaultpb.ListCertificatesRequest, size int32, token string) {
					q.PageSize, q.PageToken = size, token
				},
			})
		}),
	}
	pages.flags(c)
	return c
}

func (e *Env) pkiRevoke() *cobra.Command {
	req := &vaultpb.RevokeCertificateRequest{}
	c := &cobra.Command{
		Use: "revoke", Short: "Take a role away: revoke one certificate, or all that a role and name have", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			req.RequestId = e.flags.requestID
			reply, err := c.RevokeCertificate(cmd.Context(), req)
			if err != nil {
				return err
			}
			return e.Print(cmd, reply)
		}),
	}
	c.Flags().StringVar(&req.Role, "role", "", "administrator or user")
	c.Flags().StringVar(&req.Name, "name", "", "of the holder")
	c.Flags().StringVar(&req.Serial, "serial", "", "only this certificate; without it all of the role and name")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the log")
	required(c, "role", "name")
	complete(c, "role", roles...)
	e.completeFlag(c, "name", e.certificateHolders)
	e.completeFlag(c, "serial", e.certificateSerials)
	return c
}

func (e *Env) pkiIssue() *cobra.Command {
	req := &vaultpb.IssueCertificateRequest{}
	var out string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "issue", Short: "Issue a certificate; its private key is made here and never leaves", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			req.RequestId = e.flags.requestID
			if ttl != 0 {
				req.Ttl = durationpb.New(ttl)
			}
			files, err := filesFor(out, req.GetName())
			if err != nil {
				return err
			}
			return e.issue(cmd, c, req, files)
		}),
	}
	c.Flags().StringVar(&req.Role, "role", "", "administrator or user")
	c.Flags().StringVar(&req.Name, "name", "", "of the holder")
	c.Flags().StringVar(&out, "out", ".", "`directory` for NAME.key, NAME.crt and ca.crt, or a prefix for the first two")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it is good; without it 90 days, at most 9552h (398 days)")
	required(c, "role", "name")
	complete(c, "role", roles...)
	return c
}

// certificateFiles are where an issued certificate goes.
type certificateFiles struct{ key, certificate, ca string }

// filesFor puts NAME.* into an existing directory (or one that is written with a slash at its end); any other path is a prefix.
func filesFor(out, name string) (certificateFiles, error) {
	prefix := out
	info, err := os.Stat(out)
	if strings.HasSuffix(out, "/") || err == nil && info.IsDir() {
		if name != filepath.Base(name) || name == "." || name == ".." {
			return certificateFiles{}, badArgument(fmt.Sprintf("the name %q makes no file name", name), "--out PREFIX")
		}
		prefix = filepath.Join(out, name)
	}
	if _, err := os.Stat(filepath.Dir(prefix)); err != nil {
		return certificateFiles{}, badArgument(fmt.Sprintf("the directory for the files: %v", err), "mkdir -p "+filepath.Dir(prefix))
	}
	return certificateFiles{prefix + ".key", prefix + ".crt", filepath.Join(filepath.Dir(prefix), "ca.crt")}, nil
}

// issue makes the key, has its certificate signed, and writes the files. The key is on disk before the certificate exists, so that
// none is issued whose key could not be kept; it is removed if none was issued.
func (e *Env) issue(cmd *cobra.Command, c *client.Client, req *vaultpb.IssueCertificateRequest, files certificateFiles) error {
	if _, err := os.Lstat(files.certificate); err == nil {
		return badArgument(files.certificate+" exists already and is not overwritten", "another --out, or move the file away")
	}
	csr, err := newKeyFile(files.key)
	if err != nil {
		return err
	}
	req.Csr = csr
	reply, err := c.IssueCertificate(cmd.Context(), req)
	if err != nil {
		return errors.Join(notRepeatable(err), os.Remove(files.key))
	}
	if err := createFile(files.certificate, certificatePEM(reply.GetCertificate()), 0o644); err != nil {
		return err
	}
	if err := keepCA(files.ca, certificatePEM(reply.GetCa())); err != nil {
		return err
	}
	o := object{{"key", files.key}, {"certificate", files.certificate}, {"ca", files.ca}}
	o = append(o, message(reply.GetRecord().ProtoReflect())...).with("index", reply.GetIndex())
	return e.Print(cmd, o)
}

// notRepeatable takes back the advice to repeat the request by its id: a repeat would have another key, which the cluster must
// refuse. A certificate whose key is gone harms nobody, and can be revoked.
func notRepeatable(err error) error {
	if kind.Metadata(err)[client.MetaRequestID] == "" {
		return err
	}
	return kind.New(kind.Of(err), err.Error(), map[string]string{kind.MetaTry: "the same command again; conclave pki list shows what was issued"})
}

// newKeyFile makes a P-256 key in a new file as PKCS#8 PEM, and returns a request for its certificate. The subject is empty: who the
// holder is, is the cluster's word and stands in the certificate's URI.
func newKeyFile(path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	defer clear(der)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return csr, createFile(path, text, 0o600)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// keepCA writes the cluster's CA certificate where there is none. One that is there and differs is left alone: it may be what
// other programs trust.
func keepCA(path string, text []byte) error {
	there, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(there, text):
		return nil
	case err == nil:
		return fmt.Errorf("key and certificate are written, but %s holds another CA certificate and is not overwritten; write them into another directory to get this cluster's", path)
	}
	return createFile(path, text, 0o644)
}
