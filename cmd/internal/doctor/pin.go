package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/config"
	"github.com/conclave-vault/conclave/cmd/internal/node"
	"github.com/conclave-vault/conclave/vault"
)

// pin checks where the token's PIN comes from. What it reads is wiped and shown to nobody.
func (c *checkup) pin() Result {
	const name = "PIN"
	source := c.cfg.HSM.PIN
	switch {
	case source.FD != nil:
		return absent(name, "it comes over file descriptor %d, which only the server's start has: not checked", *source.FD)
	case source.Prompt:
		return absent(name, "a person types it at the start: not checked unattended")
	}
	path := source.File
	pin, err := source.Read()
	defer clear(pin)
	if err != nil {
		return fail(name, err.Error(), pinAdvice(path, err))
	}
	return c.pinFile(name, path, pin)
}

func pinAdvice(path string, err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Sprintf("write the PIN into %s: (umask 077; head -c 24 /dev/urandom | base64 > %s)   if the token has none yet", path, path)
	case errors.Is(err, os.ErrPermission):
		return "run this as the user who runs the server, or give that user the file: chown USER " + path
	}
	return "chmod 600 " + path + ", and let the file hold the PIN on one line"
}

// pinFile looks at what the program accepts and a person may not have meant.
func (c *checkup) pinFile(name, path string, pin []byte) Result {
	owner, err := ownerOf(path)
	inside, _ := filepath.Rel(c.cfg.DataDir, path)
	switch user := os.Geteuid(); {
	case err != nil:
		return fail(name, err.Error(), pinAdvice(path, err))
	case owner != user:
		return warn(name, fmt.Sprintf("%s belongs to user %d and this is user %d", path, owner, user),
			"run this as the user who runs the server, or: chown that user "+path)
	case writableByOthers(filepath.Dir(path)):
		return fail(name, "others may replace "+path+": they can write its folder", "chmod go-w "+filepath.Dir(path))
	case !bytes.Equal(bytes.TrimSpace(pin), pin):
		return warn(name, path+": the PIN begins or ends with a blank, which is a part of it",
			"if that is not meant, write it anew without; a line break at its end is no part of it")
	case bytes.ContainsAny(pin, "\r\n"):
		return warn(name, path+" has several lines, and all of them together are the PIN", "if that is not meant, write the PIN on one line")
	case inside != ".." && !strings.HasPrefix(inside, "../"):
		return warn(name, path+" lies in the data directory: whoever copies that has the keystore and what opens it",
			"keep the PIN on another file system (a tmpfs, a secrets mount), and name it in hsm.pin.file")
	}
	return good(name, "%s, readable by its owner alone", path)
}

// writableByOthers: with the sticky bit they can make files, and not replace those of others.
func writableByOthers(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o022 != 0 && info.Mode()&os.ModeSticky == 0
}

// maxTokenFile bounds a join token, as the server does.
const maxTokenFile = 16 << 10

// joinToken checks the one-time token of a node that belongs to no cluster yet.
func (c *checkup) joinToken() Result {
	const name = "join token"
	path := c.cfg.Join.TokenFile
	switch {
	case c.member != nil:
		return absent(name, "this node belongs to cluster %s", c.member.ClusterID)
	case !errors.Is(c.notMember, node.ErrNoCluster):
		return absent(name, "whether this node belongs to a cluster cannot be read")
	case path == "":
		return absent(name, "this node is to found a cluster: conclave init --config FILE --out DIR")
	}
	const advice = "make another on a node of the cluster: conclave node token "
	text, err := config.ReadPrivate(path, maxTokenFile)
	defer clear(text)
	if err != nil {
		return fail(name, err.Error(), fmt.Sprintf("%s%s --out FILE, and bring it to %s (mode 0600)", advice, c.cfg.Node, path))
	}
	t, err := vault.ParseJoinToken(string(text))
	clear(t.Secret)
	switch {
	case err != nil:
		return fail(name, path+" holds no join token", advice+c.cfg.Node)
	case string(t.Node) != c.cfg.Node:
		return fail(name, fmt.Sprintf("it is for node %s and this is %s", t.Node, c.cfg.Node), advice+c.cfg.Node)
	}
	return good(name, "for this node, in cluster %s, through %s", t.Cluster, strings.Join(t.Addresses, ", "))
}

// openFiles: every connection, log segment and snapshot is one.
func (c *checkup) openFiles() Result {
	const name, least = "open files", 4096
	const advice = "raise it: LimitNOFILE=65536 in the service's unit, or ulimit -n 65536"
	limit, whose, err := c.limit("Max open files", unix.RLIMIT_NOFILE)
	switch {
	case err != nil:
		return absent(name, "the kernel does not tell: %v", err)
	case limit < least:
		return warn(name, fmt.Sprintf("%s may open %d, %d are advised", whose, limit, least), advice)
	}
	return good(name, "%s may open %s", whose, count(limit))
}
