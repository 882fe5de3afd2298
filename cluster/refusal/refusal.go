package refusal

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
	"unicode/utf8"
)

// What may be written. A line has at most some 600 bytes, so one source fills at most 52 MB a day, and all together 210 MB for
// each port: an amount that log rotation copes with.
const (
	// Burst is how many lines one source gets before its refusals are only counted: a test or an operator who tries things sees all.
	Burst = 100
	// PerSecond is how many lines one source gets afterwards.
	PerSecond = 1
	// burstAll and perSecondAll are the same for all sources together.
	burstAll     = 4 * Burst
	perSecondAll = 4 * PerSecond
	// Window is how long refusals are counted before the count is written.
	Window = 10 * time.Second
	// maxSources bounds the sources that are told apart; those beyond share one account.
	maxSources = 1024
	// maxReason bounds the text of a reason, which may quote a certificate of the stranger's own making.
	maxReason = 256
)

// Messages of the lines.
const (
	// Message of the line that says of one refusal: port, purpose, remote and err.
	Message = "connection refused"
	// CountMessage of the line that says how many (refused) of one source (remote) were only counted in a time (within).
	CountMessage = "more connections refused"
)

// Log of the refusals at one port.
type Log struct {
	log *slog.Logger

	mu      sync.Mutex
	closed  bool
	all     bucket
	sources map[netip.Prefix]*source
}

// source is where connections come from: an IPv4 address or an IPv6 network of 64 bits, which is what one host is given.
type source struct {
	bucket
	key     netip.Prefix
	counted int
	timer   *time.Timer // runs while something is counted
}

// bucket of lines that may still be written.
type bucket struct {
	lines float64
	at    time.Time
}

// New makes the log of the port of that name.
func New(log *slog.Logger, port string) *Log {
	return &Log{log: log.With("port", port), all: full(burstAll), sources: make(map[netip.Prefix]*source)}
}

func full(burst float64) bucket { return bucket{lines: burst, at: time.Now()} }

// fill adds the lines that time has earned and reports whether there is one.
func (b *bucket) fill(now time.Time, burst, perSecond float64) bool {
	b.lines = min(burst, b.lines+perSecond*now.Sub(b.at).Seconds())
	b.at = now
	return b.lines >= 1
}

// Refused writes, or counts, that whoever is at remote was refused what purpose names (a protocol, a method), because of err.
func (l *Log) Refused(remote net.Addr, purpose string, err error) {
	if l.line(remote) {
		l.log.Warn(Message, "purpose", short(purpose), "remote", addr(remote), "err", short(err.Error()))
	}
}

// line takes one, or counts.
func (l *Log) line(remote net.Addr) bool {
	key, now := Source(remote), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.source(key, now)
	own, shared := s.fill(now, Burst, PerSecond), l.all.fill(now, burstAll, perSecondAll)
	if own && shared {
		s.lines--
		l.all.lines--
		return true
	}
	s.counted++
	if s.timer == nil && !l.closed {
		s.timer = time.AfterFunc(Window, func() { l.report(s) })
	}
	return false
}

// others is the source of all those that are one too many.
var others netip.Prefix

func (l *Log) source(key netip.Prefix, now time.Time) *source {
	if s := l.sources[key]; s != nil {
		return s
	}
	if len(l.sources) >= maxSources {
		l.forget(now)
	}
	if len(l.sources) >= maxSources {
		key = others
		if s := l.sources[key]; s != nil {
			return s
		}
	}
	s := &source{bucket: full(Burst), key: key}
	l.sources[key] = s
	return s
}

// forget drops the sources of which nothing needs to be known any more.
func (l *Log) forget(now time.Time) {
	for key, s := range l.sources {
		s.fill(now, Burst, PerSecond)
		if s.counted == 0 && s.lines >= Burst {
			delete(l.sources, key)
		}
	}
}

// report writes what was counted of a source.
func (l *Log) report(s *source) {
	l.mu.Lock()
	counted := s.counted
	s.counted, s.timer = 0, nil
	l.mu.Unlock()
	if counted != 0 {
		l.log.Warn(CountMessage, "remote", name(s.key), "refused", counted, "within", Window.String())
	}
}

// Close writes what was only counted. Afterwards refusals are still written, but counts are not.
func (l *Log) Close() {
	l.mu.Lock()
	l.closed = true
	var counted []*source
	for _, s := range l.sources {
		if s.timer != nil && s.timer.Stop() {
			counted = append(counted, s)
		}
	}
	l.mu.Unlock()
	for _, s := range counted {
		l.report(s)
	}
}

// Source is what the limits of strangers are counted by: an IPv4 address, or the /64 of an IPv6 address, because one host has all
// of these. Addresses without an IP share one source.
func Source(remote net.Addr) netip.Prefix {
	if remote == nil {
		return others
	}
	ap, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return others
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return others
	}
	return p
}

func name(key netip.Prefix) string {
	switch {
	case !key.IsValid():
		return "others"
	case key.IsSingleIP():
		return key.Addr().String()
	default:
		return key.String()
	}
}

func addr(a net.Addr) string {
	if a == nil {
		return "unknown"
	}
	return a.String()
}

// short cuts a text, at a whole character.
func short(text string) string {
	if len(text) <= maxReason {
		return text
	}
	cut := maxReason
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
