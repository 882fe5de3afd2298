//go:build !race

package soft_test

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// planted is a generator that gives out, while it is armed, bytes by which a search knows them without having a copy of them: each follows
// from the one before.
type planted struct{ armed bool }

func (p *planted) Read(b []byte) (int, error) {
	if !p.armed {
		return rand.Read(b)
	}
	follows := byte(7)
	for i := range b {
		b[i], follows = follows, next(follows)
	}
	return len(b), nil
}

// next has no fixed point, so that no area of equal bytes looks planted.
func next(b byte) byte { return b*167 + 13 }

// TestNothingOfAKeyIsLeft: after its last use and a collection, the bytes of a key are nowhere in this process's memory, also of those that no
// wipe reaches, because crypto/ecdh, crypto/mlkem and crypto/aes keep them to themselves. It searches all of it. Only a build with
// GOEXPERIMENT=runtimesecret promises that; every build shows that the search finds an open key.
func TestNothingOfAKeyIsLeft(t *testing.T) {
	random, opt := &planted{}, cheap()
	opt.Random = random
	token, _ := create(t, opt)
	m, err := hsm.DeriveMaster(make([]byte, 32), "c1", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.ImportMaster(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	algorithms := []hsm.Algorithm{hsm.ECDHX25519, hsm.ECDHP256, hsm.AES256GCM, hsm.MLKEM768, hsm.Ed25519, hsm.HMACSHA256}
	if !soft.Erases {
		algorithms = algorithms[:1] // what one leaves behind, the search for the next would find
	}
	for _, alg := range algorithms {
		open, left := lifeOf(t, token, random, alg), occurrences(t)
		t.Logf("%s: %d copies while it is open, %d after (erasing: %t)", alg, open, left, soft.Erases)
		if open == 0 {
			t.Errorf("%s: an open key is not found, so the search is worth nothing", alg)
		}
		if soft.Erases && left != 0 {
			t.Errorf("%s: %d copies of the key are left", alg, left)
		}
	}
}

// lifeOf makes, opens, uses and releases a key, and counts its copies while it is open.
func lifeOf(t *testing.T, token *soft.Token, random *planted, alg hsm.Algorithm) (open int) {
	t.Helper()
	random.armed = true
	k, err := token.Generate(t.Context(), hsm.Binding{ClusterID: "c1", KeyID: "k", Version: 1, Algorithm: alg}, false)
	random.armed = false
	if err != nil {
		t.Fatal(err)
	}
	key, err := token.Open(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	defer key.Release()
	switch alg.Family() {
	case hsm.FamilyCipher:
		_, err = key.Encrypt(t.Context(), []byte("message"), nil)
	case hsm.FamilyMAC:
		_, err = key.MAC(t.Context(), []byte("message"))
	case hsm.FamilySign:
		_, err = key.Sign(t.Context(), hsm.SignInput{Message: []byte("message")})
	case hsm.FamilyAgree:
		_, err = key.Agree(t.Context(), peerOf(t, alg))
	case hsm.FamilyDecapsulate:
		_, err = key.Decapsulate(t.Context(), make([]byte, 1088))
	}
	if err != nil {
		t.Fatal(err)
	}
	return occurrences(t)
}

func peerOf(t *testing.T, alg hsm.Algorithm) []byte {
	t.Helper()
	_, spki, err := soft.NewMaterial(alg, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return spki
}

// recognised is how many planted bytes in a row are a find: the shortest key has them, and nothing else has by chance.
const recognised = 32

// occurrences counts in all writable memory of the process, its own buffer excepted, which lies outside the heap.
func occurrences(t *testing.T) (n int) {
	t.Helper()
	for range 3 { // what has a finalizer takes more than one collection
		runtime.GC()
	}
	buffer, err := syscall.Mmap(-1, 0, 1<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Munmap(buffer); err != nil {
			t.Error(err)
		}
	}()
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	own := uint64(uintptr(unsafe.Pointer(&buffer[0])))
	for _, area := range writable(t) {
		run, last := 0, byte(0)
		for at := area.from; at < area.to; at += uint64(len(buffer)) {
			if at <= own && own < at+uint64(len(buffer)) {
				run = 0
				continue
			}
			got, err := memory.ReadAt(buffer[:min(uint64(len(buffer)), area.to-at)], int64(at))
			if err != nil && got == 0 {
				break // guarded, or gone meanwhile
			}
			for _, b := range buffer[:got] {
				if run++; b != next(last) {
					run = 1
				}
				if last = b; run == recognised {
					n++
				}
			}
		}
	}
	return n
}

type area struct{ from, to uint64 }

func writable(t *testing.T) (areas []area) {
	t.Helper()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		var a area
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &a.from, &a.to, &rights); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(rights, "rw") {
			areas = append(areas, a)
		}
	}
	return areas
}
