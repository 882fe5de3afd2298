package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"testing"
)

func gossipKey(first byte) []byte {
	key := make([]byte, gossipKeyBytes)
	key[0] = first
	return key
}

func testSeal(t testing.TB, key byte, label string) *gossipSeal {
	t.Helper()
	s, err := newGossipSeal(gossipKey(key), label)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// close seals as memberlist does.
func (s *gossipSeal) close(t testing.TB, plain string, bound []byte) string {
	t.Helper()
	nonce := make([]byte, s.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return "\x01" + string(s.aead.Seal(nonce, nonce, []byte(plain), bound))
}

func (s *gossipSeal) labelled(b string) string {
	return string([]byte{gossipLabel, byte(len(s.label))}) + s.label + b
}

func (s *gossipSeal) closePacket(t testing.TB, plain string) string {
	t.Helper()
	return s.labelled(s.close(t, plain, []byte(s.label)))
}

func (s *gossipSeal) closeStream(t testing.TB, plain string) string {
	t.Helper()
	header := binary.BigEndian.AppendUint32([]byte{gossipEncrypted}, uint32(len(plain)+1+s.aead.NonceSize()+s.aead.Overhead()))
	return s.labelled(string(header) + s.close(t, plain, append(bytes.Clone(header), s.label...)))
}

func withCRC(plain string) string {
	return string(binary.BigEndian.AppendUint32([]byte{gossipCRC}, crc32.ChecksumIEEE([]byte(plain)))) + plain
}

func parts(all ...string) string {
	b := []byte{gossipCompound, byte(len(all))}
	for _, p := range all {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return string(b) + strings.Join(all, "")
}

var (
	goodPing  = "\x00" + mpMap(2, mpStr("SeqNo")+"\x01"+mpStr("Node")+mpStr("n1"))
	goodAlive = "\x04" + mpMap(2, mpStr("Node")+mpStr("n2")+mpStr("Vsn")+"\xa6\x01\x05\x05\x02\x05\x04")
	goodState = mpMap(2, mpStr("Name")+mpStr("n2")+mpStr("Vsn")+"\xa6\x01\x05\x05\x02\x05\x04")
)

func pushPull(nodes, state string, rest string) string {
	return "\x06" + mpMap(3, mpStr("Nodes")+nodes+mpStr("UserStateLen")+state+mpStr("Join")+"\xc3") + rest
}

func TestGossipPackets(t *testing.T) {
	s := testSeal(t, 1, "test")
	for name, c := range map[string]struct {
		packet string
		ok     bool
	}{
		"a ping":                  {s.closePacket(t, goodPing), true},
		"with a checksum":         {s.closePacket(t, withCRC(goodPing)), true},
		"several":                 {s.closePacket(t, withCRC(parts(goodPing, goodAlive))), true},
		"empty":                   {"", false},
		"no label":                {s.close(t, goodPing, []byte("test")), false},
		"half a label":            {s.labelled("")[:3], false},
		"another cluster":         {testSeal(t, 1, "other").closePacket(t, goodPing), false},
		"another key":             {testSeal(t, 2, "test").closePacket(t, goodPing), false},
		"not encrypted":           {s.labelled(goodPing), false},
		"cut":                     {s.closePacket(t, goodPing)[:40], false},
		"format 0":                {s.labelled("\x00" + s.close(t, goodPing, []byte("test"))[1:]), false},
		"noise":                   {s.labelled(strings.Repeat("\x01noise", 5000)), false},
		"nothing, sealed":         {s.closePacket(t, ""), false},
		"a wrong checksum":        {s.closePacket(t, "\x0c\x00\x00\x00\x00"+goodPing), false},
		"a checksum of nothing":   {s.closePacket(t, withCRC("")), false},
		"compressed":              {s.closePacket(t, "\x09"+mpMap(1, mpStr("Buf")+mpStr("x"))), false},
		"compressed, in parts":    {s.closePacket(t, parts(goodPing, "\x09"+mpMap(1, mpStr("Buf")+mpStr("x")))), false},
		"parts of parts":          {s.closePacket(t, parts(parts(goodPing))), false},
		"more parts than bytes":   {s.closePacket(t, "\x07\xff\x00"), false},
		"a part that is cut":      {s.closePacket(t, "\x07\x01\x00\xff"+goodPing), false},
		"a user's message":        {s.closePacket(t, "\x08hello"), false},
		"state in a packet":       {s.closePacket(t, pushPull("\x00", "\x00", "")), false},
		"four versions":           {s.closePacket(t, "\x04"+mpMap(1, mpStr("Vsn")+"\xa4\x01\x05\x05\x02")), false},
		"a text of 4 GiB":         {s.closePacket(t, "\x04"+mpMap(1, mpStr("Node")+mpSized(0xdb, 1<<32-1, ""))), false},
		"a list of 4 Gi":          {s.closePacket(t, "\x04"+mpMap(1, mpStr("Vsn")+mpSized(0xdd, 1<<32-1, ""))), false},
		"lists in lists in lists": {s.closePacket(t, "\x04"+mpMap(1, mpStr("x")+strings.Repeat("\x91", 1000)+"\x01")), false},
	} {
		if err := s.packet([]byte(c.packet)); (err == nil) != c.ok || err != nil && !errors.Is(err, errGossip) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGossipStreams(t *testing.T) {
	s := testSeal(t, 1, "test")
	for name, c := range map[string]struct {
		plain string
		ok    bool
	}{
		"a ping":                  {goodPing, true},
		"no nodes":                {pushPull("\x00", "\x00", ""), true},
		"two nodes":               {pushPull("\x02", "\x00", goodState+goodState), true},
		"nothing":                 {"", false},
		"fewer nodes than said":   {pushPull("\x02", "\x00", goodState), false},
		"more nodes than said":    {pushPull("\x01", "\x00", goodState+goodState), false},
		"less than no nodes":      {pushPull("\xff", "\x00", ""), false},
		"nodes without a count":   {pushPull(mpStr("2"), "\x00", goodState), false},
		"2^63 nodes":              {pushPull("\xcf\x80\x00\x00\x00\x00\x00\x00\x00", "\x00", ""), false},
		"1025 nodes":              {pushPull("\xcd\x04\x01", "\x00", strings.Repeat("\x80", 1025)), false},
		"other state":             {pushPull("\x00", "\x05", "12345"), false},
		"other state, below 0":    {pushPull("\x00", "\xff", ""), false},
		"two counts":              {"\x06" + mpMap(2, mpStr("Nodes")+"\x00"+mpStr("Nodes")+"\x01"), false},
		"no header":               {"\x06", false},
		"a header that is a list": {"\x06\x93\x01\x00\xc3", false},
		"compressed":              {"\x09" + mpMap(1, mpStr("Buf")+mpStr("x")), false},
		"a user's message":        {"\x08" + mpMap(1, mpStr("UserMsgLen")+"\xff"), false},
		"sealed again":            {s.close(t, goodPing, nil), false},
		"a node of four versions": {pushPull("\x01", "\x00", mpMap(1, mpStr("Vsn")+"\xa4\x01\x05\x05\x02")), false},
	} {
		if err := s.stream([]byte(c.plain)); (err == nil) != c.ok || err != nil && !errors.Is(err, errGossip) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzGossipMessage: whatever is sealed with the key, and whatever is not, is looked at without harm.
func FuzzGossipMessage(f *testing.F) {
	for _, seed := range []string{"", goodPing, goodAlive, withCRC(parts(goodPing, goodAlive)), pushPull("\x02", "\x00", goodState+goodState), "\x07\xff", "\x06\xdf\xff\xff\xff\xff"} {
		f.Add([]byte(seed))
	}
	s := testSeal(f, 1, "test")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, err := range []error{
			s.packet(b), s.packet([]byte(s.labelled(string(b)))), s.packet([]byte(s.closePacket(t, string(b)))), s.stream(b),
		} {
			if err != nil && !errors.Is(err, errGossip) {
				t.Fatal(err)
			}
		}
	})
}

// TestGateReadsStreams: over a connection, from its label to its last byte, and of somebody who has the key.
func TestGateReadsStreams(t *testing.T) {
	s := testSeal(t, 1, "test")
	g := &gossipGate{seal: s}
	good := s.closeStream(t, pushPull("\x02", "\x00", goodState+goodState))
	for name, c := range map[string]struct {
		bytes string
		ok    bool
	}{
		"whole":                          {good, true},
		"cut":                            {good[:len(good)-1], false},
		"cut in its length":              {good[:9], false},
		"changed":                        {good[:len(good)-1] + string([]byte{good[len(good)-1] ^ 1}), false},
		"with another length":            {strings.Replace(good, string(good[6:11]), "\x0a\x00\x00\x00\x40", 1), false},
		"of another cluster":             {testSeal(t, 1, "else").closeStream(t, goodPing), false},
		"less than no nodes":             {s.closeStream(t, pushPull("\xff", "\x00", "")), false},
		"nothing":                        {s.closeStream(t, ""), false},
		"the largest":                    {s.closeStream(t, goodPing+strings.Repeat("\x00", maxGossipStream-29-len(goodPing))), true},
		"one byte more than the largest": {s.closeStream(t, goodPing+strings.Repeat("\x00", maxGossipStream-28-len(goodPing))), false},
	} {
		near, far := net.Pipe()
		go func() {
			_, _ = io.WriteString(far, c.bytes) // the gate may have had enough
			far.Close()
		}()
		got, err := g.read(&gossipConn{Conn: near, gate: g})
		near.Close()
		if (err == nil) != c.ok || c.ok && string(got) != c.bytes || !c.ok && !errors.Is(err, errGossip) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
