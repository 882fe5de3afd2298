package fsm_test

import (
	"fmt"
	"testing"

	"github.com/conclave-vault/conclave/fsm"
)

// creates encodes n creations of keys with names of a usual length, spread over actors so that no limit of requests is met.
func creates(b *testing.B, s *stage, n int) [][]byte {
	b.Helper()
	all := make([][]byte, n)
	for i := range all {
		name := fmt.Sprintf("payments/region-%02d/key-%08d", i%20, i)
		m := material(1)
		m.Blob, m.PublicKey = make([]byte, 160), make([]byte, 91)
		all[i] = encode(b, fsm.Entry{
			Command: fsm.CreateKey{ID: fsm.KeyID(s.requestID()), Name: fsm.KeyName(name), Algorithm: "ecdsa-p256", Material: m},
			Actor:   fsm.Actor(fmt.Sprintf("spiffe://demo/administrator/a%d", i/5000)), RequestID: s.requestID(),
		}.Stamped(s.clock))
	}
	return all
}

// BenchmarkApply measures creations of keys by the size of the batch that is published at once. ns/op is per apply.
func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s := cluster(b, true)
			entries := creates(b, s, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for i, data := range entries {
				s.index++
				if r, _, err := s.m.Apply(s.index, data); err != nil || r.Code != fsm.CodeOK {
					b.Fatal(r, err)
				}
				if i%batch == batch-1 {
					s.m.Publish()
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
		})
	}
}

// BenchmarkDigest measures the digest of a catalog of ten thousand keys.
func BenchmarkDigest(b *testing.B) {
	s := cluster(b, true)
	for _, data := range creates(b, s, 10_000) {
		s.index++
		if r, _, err := s.m.Apply(s.index, data); err != nil || r.Code != fsm.CodeOK {
			b.Fatal(r, err)
		}
	}
	b.ResetTimer()
	for range b.N {
		s.m.Publish().Digest()
	}
}
