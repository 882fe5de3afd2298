package usage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/conclave-vault/conclave/vault/segment"
)

// Run writes until ctx ends, and once more then. An error is one of the disk, and final.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(FlushEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		var err error
		select {
		case <-l.kick:
			err = l.flush()
		case <-tick.C:
			if err = l.lookAtSize(); err == nil {
				err = l.flush()
			}
		case <-ctx.Done():
		}
		if err != nil {
			return l.close(err)
		}
	}
	l.recordGap(l.cfg.Now())
	if err := l.flush(); err != nil {
		return l.close(err)
	}
	_ = l.close(nil)
	return ctx.Err()
}

// close refuses everything from here on. Linux reports a lost write once, so the first error is the last word.
func (l *Log) close(err error) error {
	why := ErrClosed
	if err != nil {
		why = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = why
		close(l.stopped)
	}
	if l.active != nil {
		err = errors.Join(err, l.active.Close())
		l.active = nil
	}
	return err
}

// take swaps the buffers; nil if there is nothing to write. Whether the batch after this one begins a segment is known now, and its link
// takes the next number.
func (l *Log) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.pending
	if len(b.buf) == 0 {
		return nil
	}
	spare := l.spare
	l.spare = nil
	l.pending, l.writing = newBatch(spare, l.next), b.done
	size := int64(0)
	if !b.link {
		size = l.file.Size
	}
	if size+int64(len(b.buf))+int64(l.next-b.first)*int64(segment.Overhead) >= l.cfg.SegmentBytes {
		l.pending.link = true
		l.next++
	}
	close(b.taken)
	return b
}

// flush writes what is pending, and makes it durable.
func (l *Log) flush() error {
	b := l.take()
	if b == nil {
		return nil
	}
	if b.link {
		if err := l.beginSegment(b.first); err != nil {
			return err
		}
	}
	sizes := l.frame(b)
	if _, err := l.active.WriteAt(l.out, l.file.Size); err != nil {
		return err
	}
	if err := l.cfg.Sync(l.active); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range sizes {
		l.file.Add(n)
	}
	l.durable = b.first + uint64(len(sizes))
	l.total += int64(len(l.out))
	l.spare = b.buf
	l.judgeSize()
	close(b.done)
	return nil
}

// frame chains the entries of a batch into out and returns what each takes on the disk.
func (l *Log) frame(b *batch) (sizes []int64) {
	l.out = l.out[:0]
	number := b.first
	put := func(data []byte) {
		l.head = chain(l.head, number, data)
		l.out = segment.Append(l.out, segment.Record{Number: number, Data: data, Hash: l.head})
		sizes = append(sizes, int64(segment.Overhead+len(data)))
		number++
	}
	if b.link {
		put(appendSegment(nil, l.cfg.Now(), l.cfg.Boot, l.head))
	}
	for rest := b.buf; len(rest) > 0; {
		n := 2 + int(binary.BigEndian.Uint16(rest))
		put(rest[2:n])
		rest = rest[n:]
	}
	return sizes
}

// chain is the hash beside a record: over the one before, the number, and the data.
func chain(previous segment.Hash, number uint64, data []byte) segment.Hash {
	var room [512]byte // most records fit
	b := append(room[:0], "conclave usage record\x00"...)
	b = append(b, previous[:]...)
	b = binary.BigEndian.AppendUint64(b, number)
	return sha256.Sum256(append(b, data...))
}

// beginSegment opens the next file. The one before is durable: every batch is.
func (l *Log) beginSegment(first uint64) error {
	if l.active != nil {
		if err := l.active.Close(); err != nil {
			return err
		}
		l.active = nil
	}
	f, err := segment.Create(l.cfg.Dir, magic, first)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.file = f
	l.total += f.Size
	l.mu.Unlock()
	l.active, err = os.OpenFile(f.Path, os.O_RDWR, 0o600)
	return err
}

// judgeSize decides whether the log is full; the lock is held.
func (l *Log) judgeSize() {
	l.full = l.total > l.cfg.MaxBytes-margin
}

// lookAtSize says that the log is full or will be, and sees whether somebody has made room.
func (l *Log) lookAtSize() error {
	l.mu.Lock()
	total := l.total
	l.mu.Unlock()
	if total < l.cfg.MaxBytes/5*4 {
		return nil
	}
	total, err := sizeOf(l.cfg.Dir)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.total = total
	l.judgeSize()
	full, missing := l.full, l.missing
	l.mu.Unlock()
	now := l.cfg.Now()
	due := now.Sub(l.alarmed) >= alarmEvery
	if missing > 0 && (due || !full) {
		l.recordGap(now)
	}
	if due && total >= l.cfg.MaxBytes/5*4 {
		l.alarmed = now
		l.alarm(full, total, missing)
	}
	return nil
}

func (l *Log) alarm(full bool, total int64, missing uint64) {
	attrs := []any{"bytes", total, "limit", l.cfg.MaxBytes, "dir", l.cfg.Dir}
	if full {
		l.cfg.Logger.Error("the usage log is full: keys of classes with a durable usage log are not used, the uses of others are counted and not recorded; move the oldest files to where they are kept, or raise usage_log.max_mib",
			append(attrs, "missing", missing)...)
		return
	}
	l.cfg.Logger.Warn("the usage log is nearly full; move the oldest files to where they are kept, or raise usage_log.max_mib", attrs...)
}

// recordGap records how many records stayed out. It has room in the margin.
func (l *Log) recordGap(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing == 0 {
		return
	}
	n := l.missing
	l.missing = 0
	l.add(func(b []byte) []byte { return appendGap(b, now, n) })
}

func sizeOf(dir string) (int64, error) {
	paths, err := segment.List(dir)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, p := range paths {
		info, err := os.Stat(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // moved away meanwhile
		}
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}
