package doctor

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/node"
)

// process that the kernel names.
type process struct {
	pid     int
	command string
}

// lockHolder is the process that holds a lock on a file; 0 if none does or the kernel does not show it.
func (h host) lockHolder(path string) int {
	var s unix.Stat_t
	if unix.Stat(path, &s) != nil {
		return 0
	}
	all, err := h.read("/proc/locks")
	if err != nil {
		return 0
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(s.Dev), unix.Minor(s.Dev), s.Ino)
	for line := range strings.Lines(all) {
		// "1: FLOCK  ADVISORY  WRITE 1362 fe:00:762126 0 EOF"; a waiting one has "->" behind the number.
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[1] != "FLOCK" || fields[5] != file {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 { // -1: of another pid namespace
			return pid
		}
	}
	return 0
}

// serverOf is the process that runs the node of a data directory; 0 if none does or the kernel does not show it.
func (h host) serverOf(dir string) int {
	for _, path := range node.Locks(dir) {
		if pid := h.lockHolder(path); pid != 0 {
			return pid
		}
	}
	return 0
}

// socketOwner finds who listens on an address; not known where the kernel shows this user no more than that somebody does.
func (h host) socketOwner(network, bind string) (process, bool) {
	sockets := h.listeners(network, bind)
	if len(sockets) == 0 {
		return process{}, false
	}
	folders, _ := os.ReadDir(filepath.Join(h.root, "/proc"))
	for _, folder := range folders {
		pid, err := strconv.Atoi(folder.Name())
		if err != nil {
			continue
		}
		if h.holds(pid, sockets) {
			command, _ := h.read(fmt.Sprintf("/proc/%d/comm", pid)) // a name for people; the number counts
			return process{pid, command}, true
		}
	}
	return process{}, false
}

func (h host) holds(pid int, sockets []string) bool {
	dir := filepath.Join(h.root, "/proc", strconv.Itoa(pid), "fd")
	open, _ := os.ReadDir(dir) // another user's: nothing to see
	return slices.ContainsFunc(open, func(fd os.DirEntry) bool {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		return err == nil && slices.Contains(sockets, target)
	})
}

// listeners are the sockets that are in the way of an address, as /proc/PID/fd names them.
func (h host) listeners(network, bind string) []string {
	host, port, err := net.SplitHostPort(bind)
	if err != nil {
		return nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil
	}
	var found []string
	for _, table := range []string{network, network + "6"} {
		all, err := h.read("/proc/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(all) {
			if inode, ok := listener(line, network, net.ParseIP(host), uint16(number)); ok {
				found = append(found, "socket:["+inode+"]")
			}
		}
	}
	return found
}

// Columns of /proc/net/tcp and udp, and the states in which a socket has a port for itself.
const (
	columnLocal = 1
	columnState = 3
	columnInode = 9
	tcpListen   = "0A"
	udpOpen     = "07"
)

// listener reads a line of /proc/net: the inode of a socket that listens on the port, at ip or at every address.
func listener(line, network string, ip net.IP, port uint16) (inode string, ok bool) {
	fields := strings.Fields(line)
	want := tcpListen
	if network == "udp" {
		want = udpOpen
	}
	if len(fields) <= columnInode || fields[columnState] != want {
		return "", false
	}
	addr, number, _ := strings.Cut(fields[columnLocal], ":")
	raw, err := hex.DecodeString(addr)
	if err != nil || len(raw)%4 != 0 || !strings.EqualFold(number, fmt.Sprintf("%04X", port)) {
		return "", false
	}
	for i := 0; i < len(raw); i += 4 { // the kernel prints words of the machine's order; all supported machines are little-endian
		slices.Reverse(raw[i : i+4])
	}
	local := net.IP(raw)
	overlaps := local.IsUnspecified() || ip == nil || ip.IsUnspecified() || local.Equal(ip)
	return fields[columnInode], overlaps
}
