package cluster

import (
	"net"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

const (
	// familiarTime is how long a host is remembered after a member was last seen there: longer than a restart, and than a machine's repair
	// within a day.
	familiarTime = 24 * time.Hour
	// maxFamiliar bounds the hosts that are remembered. One more forgets the one that was seen longest ago.
	maxFamiliar = 256
)

// knownHosts are those that members come from, as far as an address can say: where the state has members, where a member has proved
// itself, and where this node has found one. It is no authority: it decides only whose unfinished handshakes compete with whose.
type knownHosts struct {
	mu    sync.Mutex
	named map[string]bool      // of addresses that are written as numbers
	seen  map[string]time.Time // host → when a member was last seen there
}

func newKnownHosts() *knownHosts { return &knownHosts{seen: make(map[string]time.Time)} }

// name replaces the hosts that are known from addresses. One that is written as a name is not looked up: this node is going to dial it, and
// then knows it as found.
func (k *knownHosts) name(addrs []string) {
	named := make(map[string]bool, len(addrs))
	for _, a := range addrs {
		named[hostOf(streamAddr(a))] = true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.named = named
}

// note that a member was seen at a host.
func (k *knownHosts) note(host string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen[host] = time.Now()
	if len(k.seen) <= maxFamiliar {
		return
	}
	oldest := host
	for h, at := range k.seen {
		if at.Before(k.seen[oldest]) {
			oldest = h
		}
	}
	delete(k.seen, oldest)
}

func (k *knownHosts) has(host string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, seen := k.seen[host]
	return k.named[host] || seen && time.Since(at) < familiarTime
}

// hostOf is what strangers are counted by.
func hostOf(a net.Addr) string {
	if source := refusal.Source(a); source.IsValid() {
		return source.String()
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
