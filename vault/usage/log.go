package usage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/conclave-vault/conclave/vault/segment"
)

// Errors of a log.
var (
	// ErrFull: the log has reached its size, and what must be recorded before it is answered cannot be.
	ErrFull = errors.New("this node's usage log is full")
	// ErrClosed: the log is closed, or has failed.
	ErrClosed = errors.New("the usage log is closed")
)

// FlushEvery is how long a buffered record may be in memory alone: what a kill -9 or a power cut takes with it.
const FlushEvery = 500 * time.Millisecond

const (
	magic = "conclave usage 1\n"
	// bufferBytes is what gathers while the disk is busy; there are two such buffers. Some five thousand records.
	bufferBytes = 1 << 20
	// defaultSegmentBytes is where a new segment begins: small enough to be read through for one page, large enough to keep their number low.
	defaultSegmentBytes = 8 << 20
	// DefaultMaxBytes holds some forty million records.
	DefaultMaxBytes = 8 << 30
	// MinMaxBytes leaves room for a few segments and for what full logs still take.
	MinMaxBytes = 64 << 20
	// margin is kept free below the size: the buffers may still be written, and records of what stayed out.
	margin = 4 * bufferBytes
	// alarmEvery bounds how often a full log is called so, and its gaps are recorded.
	alarmEvery = time.Minute
)

// Config of a Log.
type Config struct {
	Dir        string // made (0700) if missing
	Node, Boot string // whose log this is, and its process
	// MaxBytes is the size of all segments together; 0: DefaultMaxBytes; else at least MinMaxBytes.
	MaxBytes int64
	// Now is the wall clock; the records' time.
	Now    func() time.Time
	Logger *slog.Logger
	// SegmentBytes is where a new segment begins; 0: 8 MiB.
	SegmentBytes int64
	// Sync makes a file durable; nil: (*os.File).Sync.
	Sync func(*os.File) error
}

func (c Config) validate() error {
	switch {
	case c.Dir == "" || c.Node == "" || c.Boot == "" || c.Now == nil || c.Logger == nil:
		return errors.New("usage: Config is incomplete")
	case c.MaxBytes < MinMaxBytes || c.SegmentBytes < 0:
		return fmt.Errorf("usage: a log of %d bytes; at least %d, or 0 for the default", c.MaxBytes, int64(MinMaxBytes))
	}
	return nil
}

// batch is what is written and made durable in one piece.
type batch struct {
	buf   []byte // entries, each with a u16 length before it
	first uint64 // number of the first record in it
	link  bool   // it begins a segment: its first record, which is not in buf, is the link
	taken chan struct{}
	done  chan struct{} // closed when it is durable
}

func newBatch(buf []byte, first uint64) *batch {
	return &batch{buf: buf[:0], first: first, taken: make(chan struct{}), done: make(chan struct{})}
}

// Log is a node's usage log.
type Log struct {
	cfg  Config
	kick chan struct{} // the disk is wanted now

	mu      sync.Mutex
	pending *batch
	writing <-chan struct{} // closes when the batch that is being written is durable
	next    uint64          // number of the next record
	durable uint64          // records below it are on the disk
	full    bool
	missing uint64 // records that stayed out and are not recorded
	stopped chan struct{}
	failed  error // why stopped is closed

	// Only Run touches these after Open.
	file    *segment.File
	active  *os.File
	head    segment.Hash // of the last record written
	total   int64        // bytes of all segments
	spare   []byte
	out     []byte
	alarmed time.Time
}

// Now is the time that records are stamped with.
func (l *Log) Now() time.Time { return l.cfg.Now() }

// Append records a use in the buffer and gives the entry its number. Where there is no room it waits, and says so: what was decided
// before is old by then. Into a full log it does not go; that is counted.
func (l *Log) Append(ctx context.Context, e *Entry) (waited bool, err error) {
	for {
		b, err := l.append(e, false)
		if b == nil || err != nil {
			return waited, err
		}
		waited = true
		if err := l.await(ctx, b.taken); err != nil {
			return true, err
		}
	}
}

// Settle returns when the record of a use is on the disk, and recorded it first unless that was done. All who wait at a time share one fsync.
func (l *Log) Settle(ctx context.Context, e *Entry) error {
	for e.Sequence == 0 {
		b, err := l.append(e, true)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		if err := l.await(ctx, b.taken); err != nil {
			return err
		}
	}
	done := l.doneOf(e.Sequence)
	if done == nil {
		return nil
	}
	l.wake()
	return l.await(ctx, done)
}

// await waits for a batch, but not for a log that has ended.
func (l *Log) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-l.stopped:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c: // it came to this before the end
		return nil
	default:
		return l.end()
	}
}

func (l *Log) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// append adds an entry to the pending batch. A batch that is returned has no room for it.
func (l *Log) append(e *Entry, durable bool) (*batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return nil, l.failed
	case l.full && durable:
		return nil, fmt.Errorf("%w: it has %d MiB, its limit; move the oldest files of %s to where they are kept, or raise usage_log.max_mib", ErrFull, l.cfg.MaxBytes>>20, l.cfg.Dir)
	case l.full:
		l.missing++
		return nil, nil
	case len(l.pending.buf) > bufferBytes-maxEntry:
		l.wake()
		return l.pending, nil
	}
	e.Sequence = l.next
	l.add(func(b []byte) []byte { return appendUse(b, e) })
	if len(l.pending.buf) > bufferBytes/2 {
		l.wake()
	}
	return nil, nil
}

// maxEntry is more than any entry has, with the length before it.
const maxEntry = 4 << 10

// add puts an entry into the pending batch, whatever its size; the lock is held.
func (l *Log) add(encode func([]byte) []byte) {
	b := l.pending
	at := len(b.buf)
	b.buf = encode(append(b.buf, 0, 0))
	binary.BigEndian.PutUint16(b.buf[at:], uint16(len(b.buf)-at-2))
	l.next++
}

func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// doneOf is what closes when a record is durable; nil if it is.
func (l *Log) doneOf(sequence uint64) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case sequence < l.durable:
		return nil
	case sequence >= l.pending.first:
		return l.pending.done
	default:
		return l.writing
	}
}
