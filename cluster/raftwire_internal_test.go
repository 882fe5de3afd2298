package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// Parts of MessagePack.

func mpStr(s string) string {
	return "\xd9" + string([]byte{byte(len(s))}) + s
}

func mpSized(tag byte, n uint32, rest string) string {
	return string(binary.BigEndian.AppendUint32([]byte{tag}, n)) + rest
}

func mpMap(n byte, rest string) string { return string([]byte{0x80 | n}) + rest }

// rpc is a request of raft's.
func rpc(kind byte, body string) string { return string([]byte{kind}) + body }

func TestRaftMessagesHaveLimits(t *testing.T) {
	entry := func(size int) string {
		return mpMap(1, mpStr("Data")+mpSized(0xdb, uint32(size), strings.Repeat("d", size)))
	}
	entries := func(n int, each string) string {
		return rpc(raftAppendEntries, mpMap(1, mpStr("Entries")+mpSized(0xdd, uint32(n), strings.Repeat(each, n))))
	}
	full := entries(raftEntries, entry(MaxEntryBytes))
	for _, c := range []struct {
		name, bytes string
		ok          bool
	}{
		{"a vote", rpc(1, mpMap(2, mpStr("Term")+"\x07"+mpStr("Candidate")+mpStr("n1"))), true},
		{"the largest append", full, true},
		{"two messages", rpc(1, mpMap(0, "")) + rpc(4, mpMap(0, "")), true},
		{"a snapshot and a message", rpc(2, mpMap(1, mpStr("Size")+"\x05")) + "12345" + rpc(1, mpMap(0, "")), true},
		{"a snapshot of no bytes", rpc(2, mpMap(1, mpStr("Size")+"\x00")) + rpc(1, mpMap(0, "")), true},
		{"an entry that is too large", entries(1, entry(MaxEntryBytes+raftEntrySlack+1)), false},
		{"a text of 4 GiB", rpc(1, mpMap(1, mpStr("Term")+mpSized(0xdb, 1<<32-1, ""))), false},
		{"bytes of 4 GiB", rpc(0, mpMap(1, mpStr("Leader")+mpSized(0xc6, 1<<32-1, ""))), false},
		{"an extension of 4 GiB", rpc(0, mpMap(1, mpStr("Leader")+mpSized(0xc9, 1<<32-1, ""))), false},
		{"the longest list", entries(maxRaftItems, "\x80"), true},
		{"a longer list", entries(maxRaftItems+1, "\x80"), false},
		{"4 Gi entries", rpc(0, mpMap(1, mpStr("Entries")+mpSized(0xdd, 1<<32-1, ""))), false},
		{"4 Gi fields", rpc(0, mpSized(0xdf, 1<<32-1, "")), false},
		{"a vote with a large name", rpc(1, mpMap(1, mpStr("Candidate")+mpSized(0xdb, maxRaftSmall, ""))), false},
		{"many large entries", entries(100, entry(MaxEntryBytes)), false},
		{"deep lists", rpc(0, mpMap(1, mpStr("x")+strings.Repeat("\x91", 10))), false},
		{"an unknown kind", rpc(5, mpMap(0, "")), false},
		{"no map", rpc(0, "\x90"), false},
		{"a number as a field's name", rpc(0, mpMap(1, "\x01\x01")), false},
		{"two sizes", rpc(2, mpMap(2, mpStr("Size")+"\x05"+mpStr("Size")+"\x7f")), false},
		{"a size that is a text", rpc(2, mpMap(1, mpStr("Size")+mpStr("5"))), false},
		{"a size that is nothing", rpc(2, mpMap(1, mpStr("Size")+"\xc0")), false},
		{"a size below zero", rpc(2, mpMap(1, mpStr("Size")+"\xff")), false},
		{"a tag that does not exist", rpc(0, mpMap(1, mpStr("x")+"\xc1")), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := raftWire{requests: true}
			err := w.feed([]byte(c.bytes))
			if c.ok && (err != nil || w.within()) || !c.ok && !errors.Is(err, errRaftMessage) {
				t.Errorf("%v, within %v", err, w.within())
			}
		})
	}
	for name, c := range map[string]struct {
		bytes string
		ok    bool
	}{
		"an answer":          {mpStr("") + mpMap(1, mpStr("Term")+"\x01"), true},
		"an error of 4 GiB":  {mpSized(0xdb, 1<<32-1, ""), false},
		"the largest error":  {mpSized(0xdb, maxRaftSmall-1, strings.Repeat("x", maxRaftSmall-1)), true},
		"a larger error":     {mpSized(0xdb, maxRaftSmall, ""), false},
		"a list of 4 Gi":     {mpStr("") + mpSized(0xdd, 1<<32-1, ""), false},
		"an answer in parts": {mpStr("no") + "\x80" + mpStr("") + "\x80", true},
	} {
		w := raftWire{}
		if err := w.feed([]byte(c.bytes)); (err == nil) != c.ok || c.ok && w.within() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRaftMemoryIsCounted: what is declared is charged when it is declared, to one peer, and given back.
func TestRaftMemoryIsCounted(t *testing.T) {
	b := newRaftBudget()
	half := rpc(0, mpMap(1, mpStr("Entries")+mpSized(0xdd, raftEntries, strings.Repeat(
		mpMap(1, mpStr("Data")+mpSized(0xdb, MaxEntryBytes, strings.Repeat("d", MaxEntryBytes))), raftEntries-1))))
	var conns []*raftConn
	for range 2 {
		r := &raftConn{peer: "n2", budget: b}
		r.wire = raftWire{requests: true, charge: r.charge}
		conns = append(conns, r)
	}
	if err := conns[0].wire.feed([]byte(half)); err != nil {
		t.Fatal(err)
	}
	if err := conns[1].wire.feed([]byte(half)); !errors.Is(err, errRaftMemory) {
		t.Errorf("two large messages of one peer: %v", err)
	}
	other := &raftConn{peer: "n3", budget: b}
	other.wire = raftWire{requests: true, charge: other.charge}
	if err := other.wire.feed([]byte(half)); err != nil {
		t.Errorf("another peer: %v", err)
	}
	for _, c := range append(conns, other) {
		c.release(true)
	}
	if len(b.taken) != 0 {
		t.Errorf("left: %v", b.taken)
	}
	if err := other.charge(1); err == nil {
		t.Error("a closed connection takes memory")
	}
}

// FuzzRaftWire: no bytes break it, and how they are cut changes nothing.
func FuzzRaftWire(f *testing.F) {
	for _, seed := range []string{
		"", "\x00", rpc(0, mpMap(1, mpStr("Entries")+"\x91"+mpMap(1, mpStr("Data")+mpStr("x")))), rpc(2, mpMap(1, mpStr("Size")+"\xcd\x00\x05")) + "12345\x01\x80",
		rpc(0, mpSized(0xdf, 1<<31, "")), rpc(1, "\x81\xa4Term\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), rpc(0, "\x81\xaaAppendedAt\xd7\xff12345678"),
	} {
		f.Add([]byte(seed), uint64(1), true)
		f.Add([]byte(seed), uint64(2), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint64, requests bool) {
		cost, spent := 0, 0
		whole := raftWire{requests: requests, charge: func(n int) error {
			if cost += n; n > 0 {
				spent = max(spent, cost)
			}
			return nil
		}}
		want := whole.feed(b)
		if want != nil && !errors.Is(want, errRaftMessage) {
			t.Fatal(want)
		}
		if spent > maxRaftAppend || cost < 0 || !whole.within() && want == nil && cost != 0 {
			t.Fatalf("it charged %d, and %d are left", spent, cost)
		}
		parts, r := raftWire{requests: requests}, rand.New(rand.NewPCG(seed, 0))
		var got error
		for rest := b; len(rest) > 0 && got == nil; {
			n := 1 + r.IntN(len(rest))
			got = parts.feed(rest[:n])
			rest = rest[n:]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || got == nil && parts.within() != whole.within() {
			t.Fatalf("whole: %v, in parts: %v", want, got)
		}
	})
}
