package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/conclave-vault/conclave/cmd/internal/token"
	"github.com/conclave-vault/conclave/hsm"
	"github.com/conclave-vault/conclave/vault/guard"
)

// Row is one algorithm. Rates are operations per second of processor time, which a busy machine changes less than wall time.
type Row struct {
	Algorithm string  `json:"algorithm"`
	Operation string  `json:"operation"`
	Token     float64 `json:"token_per_cpu_second"`
	Wall      float64 `json:"token_wall_us"` // microseconds of one operation, one at a time
	Open      float64 `json:"open_wall_us"`  // microseconds to unwrap a key into a working copy and give it back
	Memory    float64 `json:"copy_bytes"`    // memory of the process that one cached working copy takes; 0: not known, or too little to be seen
	Evict     float64 `json:"evict_wall_us"` // microseconds to give a cached copy back
	Bare      float64 `json:"bare_per_cpu_second"`
	Ratio     float64 `json:"ratio"` // token / bare; 0: nothing to compare with
	Missing   string  `json:"missing,omitempty"`
}

// size of the message, the plaintext and the associated data, in bytes.
const size = 32

// measureAll measures every algorithm of the token.
func measureAll(ctx context.Context, t token.Token, each time.Duration, done func(Row)) error {
	m, err := scratchMaster(t)
	if err != nil {
		return err
	}
	defer m.Wipe()
	if err := t.ImportMaster(ctx, m, nil); err != nil {
		return err
	}
	for _, c := range t.Capabilities() {
		row := Row{Algorithm: string(c.Algorithm), Missing: c.Missing}
		if c.Usable() {
			if row, err = measure(ctx, t, c.Algorithm, each); err != nil {
				return fmt.Errorf("%s: %w", c.Algorithm, err)
			}
		}
		done(row)
	}
	return nil
}

const clusterID = "bench"

func scratchMaster(t token.Token) (*hsm.Master, error) {
	secret := make([]byte, 48)
	defer clear(secret)
	if err := t.Random(secret); err != nil {
		return nil, err
	}
	return hsm.DeriveMaster(secret, clusterID, 1)
}

// operation is the one that a key of the family is measured by; peer is the public half of another key of the algorithm.
func operation(ctx context.Context, a hsm.Algorithm, k guard.Key, own, peer, message, aad []byte) (string, func() error, error) {
	switch a.Family() {
	case hsm.FamilyDecrypt:
		sealed, err := hsm.EncryptOAEP(a, own, message)
		return "decrypt", func() error { _, err := k.Decrypt(ctx, sealed, nil); return err }, err
	case hsm.FamilyAgree:
		return "agree", func() error { _, err := k.Agree(ctx, peer); return err }, nil
	case hsm.FamilyDecapsulate:
		_, sealed, err := hsm.Encapsulate(a, own)
		return "decapsulate", func() error { _, err := k.Decapsulate(ctx, sealed); return err }, err
	case hsm.FamilySign:
		return "sign", func() error { _, err := k.Sign(ctx, hsm.SignInput{Message: message}); return err }, nil
	case hsm.FamilyMAC:
		return "mac", func() error { _, err := k.MAC(ctx, message); return err }, nil
	case hsm.FamilyCipher:
		return "encrypt", func() error { _, err := k.Encrypt(ctx, message, aad); return err }, nil
	}
	return "", nil, fmt.Errorf("%w: keys of %s are not measured", hsm.ErrUnsupported, a)
}

func measure(ctx context.Context, t token.Token, a hsm.Algorithm, each time.Duration) (Row, error) {
	row := Row{Algorithm: string(a)}
	k, err := t.Generate(ctx, hsm.Binding{ClusterID: clusterID, KeyID: "bench", Version: 1, Algorithm: a}, false)
	if err != nil {
		return row, err
	}
	key, err := t.Open(ctx, k)
	if err != nil {
		return row, err
	}
	defer key.Release()
	var peer []byte
	if a.Family() == hsm.FamilyAgree {
		other, err := t.Generate(ctx, k.Binding, false)
		if err != nil {
			return row, err
		}
		peer = other.Binding.PublicKey
	}
	message, aad := make([]byte, size), make([]byte, size)
	name, run, err := operation(ctx, a, key, k.Binding.PublicKey, peer, message, aad)
	if err != nil {
		return row, err
	}
	row.Operation = name
	compare, err := bare(a, message, aad)
	if err != nil {
		return row, err
	}
	var own, other rate
	for range rounds { // in turns, so that what else the machine does meets both
		if err := own.add(ctx, each/rounds, run); err != nil {
			return row, err
		}
		if compare != nil {
			if err := other.add(ctx, each/rounds, compare); err != nil {
				return row, err
			}
		}
	}
	var opening rate
	err = opening.add(ctx, each/rounds, func() error {
		key, err := t.Open(ctx, k)
		if err == nil {
			key.Release()
		}
		return err
	})
	row.Token, row.Wall, row.Open = own.perCPU(), own.wallMicros(), opening.wallMicros()
	if compare != nil {
		row.Bare = other.perCPU()
		row.Ratio = row.Token / row.Bare
	}
	if err == nil {
		row.Memory, row.Evict, err = cached(ctx, t, k, each/rounds)
	}
	return row, err
}

const rounds = 5

// rate counts operations and the time they took.
type rate struct {
	operations int
	wall, cpu  time.Duration
}

// add runs f for about d.
func (r *rate) add(ctx context.Context, d time.Duration, f func() error) error {
	start, cpu := time.Now(), cpuTime()
	n := 0
	for batch := 1; time.Since(start) < d; batch = min(2*batch, 1024) { // the clock is read once a batch
		for range batch {
			if err := f(); err != nil {
				return err
			}
		}
		n += batch
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	r.operations += n
	r.wall += time.Since(start)
	r.cpu += cpuTime() - cpu
	return nil
}

func (r *rate) perCPU() float64     { return float64(r.operations) / max(r.cpu.Seconds(), 1e-9) }
func (r *rate) wallMicros() float64 { return r.wall.Seconds() * 1e6 / float64(max(r.operations, 1)) }

// cpuTime is what this process has used of all processors, the module's own threads included.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
