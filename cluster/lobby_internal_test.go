package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// arrivals makes connections of hosts in this order, none of which has proved anything.
func arrivals(hosts ...string) (all []*trackedConn) {
	for i, h := range hosts {
		all = append(all, &trackedConn{host: h, number: uint64(i + 1)})
	}
	return all
}

func repeated(host string, n int) (all []string) {
	for range n {
		all = append(all, host)
	}
	return all
}

func different(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("h%d", i))
	}
	return all
}

// TestWhoLosesItsPlace: the oldest of the greediest host, and nobody while there is room.
func TestWhoLosesItsPlace(t *testing.T) {
	const newcomer = "new"
	two := append(repeated("a", 30), repeated("b", 31)...)
	for name, c := range map[string]struct {
		waiting []string
		loses   uint64 // 0: nobody
	}{
		"an empty lobby":             {nil, 0},
		"one place left":             {different(maxHandshakes - 1), 0},
		"one place left of a host":   {repeated(newcomer, maxHandshakesPerHost-1), 0},
		"a host's own oldest":        {append([]string{"a"}, repeated(newcomer, maxHandshakesPerHost)...), 2},
		"the oldest of equals":       {different(maxHandshakes), 1},
		"the oldest of the most":     {append(two, different(maxHandshakes-len(two))...), 31},
		"its own, if it has as many": {append(append(repeated("a", 30), repeated(newcomer, 30)...), different(maxHandshakes-60)...), 31},
	} {
		t.Run(name, func(t *testing.T) {
			var lost uint64
			victim, why := surplus(arrivals(c.waiting...), newcomer)
			if victim != nil {
				lost = victim.number
			}
			if lost != c.loses || (victim == nil) != (why == nil) {
				t.Errorf("%d loses its place (%v), want %d", lost, why, c.loses)
			}
		})
	}
}

// TestKnownHosts: by the state for as long as it says so, by a proof for a day, and never more than there is room for.
func TestKnownHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKnownHosts()
		k.name([]string{"10.0.0.1:7000", "[2001:db8::1]:7000", "n2:7000", "nonsense"})
		for addr, known := range map[string]bool{
			"10.0.0.1:9": true, "[::ffff:10.0.0.1]:9": true, "10.0.0.2:9": false, "[2001:db8::2]:9": true, "[2001:db8:0:1::1]:9": false, "n2:9": true, "n3:9": false,
		} {
			if k.has(hostOf(streamAddr(addr))) != known {
				t.Errorf("%s: want %t", addr, known)
			}
		}
		k.name(nil)
		k.note("a")
		if k.has("n2") || !k.has("a") {
			t.Error("a name outlived the state, or a proof did not")
		}
		time.Sleep(familiarTime) // of the bubble's clock
		if k.has("a") {
			t.Error("a proof is remembered for ever")
		}
		for i := range maxFamiliar + 1 {
			k.note(fmt.Sprint(i))
			time.Sleep(time.Second) // of the bubble's clock: each at a moment of its own
		}
		if len(k.seen) != maxFamiliar || k.has("0") || !k.has("1") || !k.has(fmt.Sprint(maxFamiliar)) {
			t.Errorf("%d hosts are remembered, not the latest %d", len(k.seen), maxFamiliar)
		}
	})
}
