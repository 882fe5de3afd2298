package e2e_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// ports of a node, from its configuration.
func (c *devCluster) ports(t *testing.T, n *member) map[string]string {
	t.Helper()
	var cfg map[string]any
	if err := yaml.Unmarshal(read(t, filepath.Join(n.dir, "node.yaml")), &cfg); err != nil {
		t.Fatal(err)
	}
	ports := map[string]string{}
	for _, name := range []string{"api", "cluster", "gossip"} {
		section, ok := cfg[name].(map[string]any)
		if !ok {
			t.Fatalf("%s has no section %s", n.id, name)
		}
		ports[name], _ = section["bind"].(string)
	}
	return ports
}

// megabytes that one node may grow by while it is fed garbage.
const growth = 256

// garbageIsSurvived sends what no client would to every port of a node, which stays up, serves, and keeps its memory.
func garbageIsSurvived(t *testing.T, c *devCluster) {
	n := c.nodes[1]
	before := memoryOf(t, n)
	pid, err := n.pid()
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, 4<<20)
	if _, err := rand.Read(random); err != nil {
		t.Fatal(err)
	}
	for port, addr := range c.ports(t, n) {
		for _, junk := range junk(random) {
			feed(t, "tcp", addr, junk)
		}
		if port == "gossip" {
			for size := 1; size < 60000; size = size*3 + 1 {
				feed(t, "udp", addr, random[:size])
			}
		}
	}
	if now, err := n.pid(); err != nil || now != pid || !alive(pid, n.dir) {
		t.Errorf("%s was process %d and is %d, %v", n.id, pid, now, err)
	}
	c.admin.at(n.api).ok(t, "sign", "dev/probe", "--in", file(t, []byte("still here")))
	if grown := memoryOf(t, n) - before; grown > growth {
		t.Errorf("%s grew by %d MiB", n.id, grown)
	} else {
		t.Logf("%s grew by %d MiB", n.id, grown)
	}
}

// oversized: a message above every limit is refused by the API, and the connection's other calls go on.
func oversized(t *testing.T, c *devCluster) {
	api := c.sdk(t, c.admin, c.nodes[2].api)
	for _, size := range []int{2 << 20, 8 << 20, 32 << 20} {
		_, err := api.Sign(t.Context(), &vaultpb.SignRequest{Name: "dev/probe", Data: make([]byte, size)})
		if k := kind.Of(err); k != kind.InvalidArgument && k != kind.Limit {
			t.Errorf("%d bytes to sign: %s: %v", size, k, err)
		}
	}
	for name, in := range map[string]*vaultpb.SignRequest{
		"a long name": {Name: strings.Repeat("n", 1<<16)}, "a name that is no text": {Name: "\x00\x01"}, "no name": {}, "a long scheme": {Name: "dev/probe", Scheme: strings.Repeat("s", 1<<16)},
	} {
		if _, err := api.Sign(t.Context(), in); err == nil || kind.Of(err) == kind.Internal || kind.Of(err) == kind.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := signsAt(t.Context(), api, c.nodes[2].id, "dev/probe"); err != nil {
		t.Error(err)
	}
}

// junk is noise, and beginnings of the right protocols with wrong ends.
func junk(random []byte) [][]byte {
	huge := binary.BigEndian.AppendUint32(nil, 1<<31)
	return [][]byte{
		{}, {0}, random[:1], random[:100], random,
		append([]byte{0x16, 0x03, 0x01, 0xff, 0xff}, random[:70000]...),               // a TLS record that is too long
		append([]byte{0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0xff, 0xff, 0xff}, huge...), // a hello that promises 16 MiB
		[]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		append(huge, random[:1000]...), []byte(strings.Repeat("A", 1<<20)),
	}
}

// feed writes, and waits a little for the other end to react. That it refuses is fine.
func feed(t *testing.T, network, addr string, b []byte) {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		t.Fatalf("%s %s does not listen any more: %v", network, addr, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Write(b)
	if network == "tcp" && err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
	}
}

// memoryOf is the resident memory of a node in MiB.
func memoryOf(t *testing.T, n *member) int {
	t.Helper()
	pid, err := n.pid()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib / 1024
		}
	}
	t.Fatal(errors.New("no VmRSS in /proc"))
	return 0
}
