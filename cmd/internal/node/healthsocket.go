package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// healthFile is the socket in the data directory: a unix socket and no port, so that whoever asks is this node's own user.
const healthFile = "health.sock"

// maxSocketPath is what sockaddr_un of Linux holds, without the zero at its end.
const maxSocketPath = 107

// listenHealth makes the socket, for its owner alone. What a process that was killed has left there goes first: the lock on the
// token says that no other one lives in this data directory.
func listenHealth(dataDir string) (*net.UnixListener, error) {
	path := filepath.Join(dataDir, healthFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the health socket of an earlier process: %w", err)
	}
	var l *net.UnixListener
	err := withSocket(dataDir, func(addr *net.UnixAddr) (err error) {
		l, err = net.ListenUnix("unix", addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the health socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by a name that may not be its name any more; the node removes it itself
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("the health socket: %w", err), l.Close())
	}
	return l, nil
}

// dialHealth connects to the socket of a running node.
func dialHealth(ctx context.Context, dataDir string) (conn net.Conn, err error) {
	err = withSocket(dataDir, func(addr *net.UnixAddr) (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", addr.Name)
		return err
	})
	return conn, err
}

// withSocket gives use an address of the socket. A path that is too long for the kernel goes through a descriptor of its folder,
// so that a data directory may lie as deep as it likes.
func withSocket(dataDir string, use func(*net.UnixAddr) error) error {
	path := filepath.Join(dataDir, healthFile)
	if len(path) <= maxSocketPath {
		return use(&net.UnixAddr{Net: "unix", Name: path})
	}
	fd, err := unix.Open(dataDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dataDir, Err: err}
	}
	defer unix.Close(fd)
	err = use(&net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, healthFile)})
	if err != nil {
		return fmt.Errorf("%s is longer than the %d bytes of a socket's name, so it is reached through /proc: %w", path, maxSocketPath, err)
	}
	return nil
}
