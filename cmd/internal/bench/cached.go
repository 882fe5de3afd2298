package bench

import (
	"bytes"
	"context"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

// maxHeld bounds the working copies that are kept open to be weighed: a card may have room for few.
const maxHeld = 2000

// cached keeps working copies of k open for about d, and tells what one takes of the process's memory, the module's part included, in bytes,
// and what giving it back takes, in microseconds. The memory is 0 where the system does not tell.
func cached(ctx context.Context, t token.Token, k hsm.WrappedKey, d time.Duration) (memory, evict float64, err error) {
	var held []guard.Key
	before := resident()
	for start := time.Now(); len(held) < maxHeld && (time.Since(start) < d || len(held) == 0); {
		key, err := t.Open(ctx, k)
		if err != nil {
			return 0, 0, err
		}
		held = append(held, key)
	}
	n := float64(len(held))
	if after := resident(); before > 0 {
		memory = max(after-before, 0) / n
	}
	start := time.Now()
	for _, key := range held {
		key.Release()
	}
	return memory, time.Since(start).Seconds() * 1e6 / n, nil
}

// resident is the memory of the process that is in use, in bytes (proc(5), statm); 0 if the system does not tell.
func resident() float64 {
	debug.FreeOSMemory() // what Go keeps for later would hide what is used
	statm, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(statm)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseFloat(string(fields[1]), 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}
