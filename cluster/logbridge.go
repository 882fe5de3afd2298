package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/conclave-vault/conclave/cluster/refusal"
)

// bridge is the one place where the logs of raft (hclog) and of memberlist (package log) become slog records.
type bridge struct {
	log  *slog.Logger
	name string
	args []any
	mute string // a message that is said elsewhere, and better
	few  *fewLines
}

var _ hclog.Logger = (*bridge)(nil)

func newBridge(l *slog.Logger, name string) *bridge {
	return &bridge{log: l.With("component", name), name: name}
}

// level maps hclog's levels. Raft's "info" tells of every heartbeat timeout and vote, which is our "debug"; its "error" includes
// every peer that does not answer, which is a warning, since a node that must stop says so through Run.
func level(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelWarn
	case hclog.Warn:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// without makes a bridge that shows one message only to whoever debugs.
func (b *bridge) without(message string) *bridge {
	c := *b
	c.mute = message
	return &c
}

// limited makes a bridge for a component that logs what others make it log.
func (b *bridge) limited() *bridge {
	c := *b
	c.few = &fewLines{}
	return &c
}

// fewLines lets so many lines pass in a refusal.Window, and counts the others.
type fewLines struct {
	mu            sync.Mutex
	until         time.Time
	passed, swept int
}

// line reports whether one more may be written, and how many were not in the window before.
func (f *fewLines) line(now time.Time) (ok bool, left int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.After(f.until) {
		left = f.swept
		f.until, f.passed, f.swept = now.Add(refusal.Window), 0, 0
	}
	if f.passed >= refusal.Burst {
		f.swept++
		return false, left
	}
	f.passed++
	return true, left
}

func (b *bridge) Log(l hclog.Level, msg string, args ...any) {
	if msg == b.mute {
		l = hclog.Debug
	}
	if b.few != nil && level(l) > slog.LevelDebug {
		ok, left := b.few.line(time.Now())
		if left != 0 {
			b.log.Warn("more lines were not written", "lines", left)
		}
		if !ok {
			return
		}
	}
	b.log.Log(context.TODO(), level(l), msg, plain(args)...) // hclog has no context to hand on
}

// plain replaces hclog's lazily formatted values by text.
func plain(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case hclog.Format:
			out[i] = fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
		case error:
			out[i] = v.Error()
		default:
			out[i] = a
		}
	}
	return out
}

func (b *bridge) Trace(msg string, args ...any) { b.Log(hclog.Trace, msg, args...) }
func (b *bridge) Debug(msg string, args ...any) { b.Log(hclog.Debug, msg, args...) }
func (b *bridge) Info(msg string, args ...any)  { b.Log(hclog.Info, msg, args...) }
func (b *bridge) Warn(msg string, args ...any)  { b.Log(hclog.Warn, msg, args...) }
func (b *bridge) Error(msg string, args ...any) { b.Log(hclog.Error, msg, args...) }

func (b *bridge) enabled(l hclog.Level) bool { return b.log.Enabled(context.TODO(), level(l)) } // likewise
func (b *bridge) IsTrace() bool              { return b.enabled(hclog.Trace) }
func (b *bridge) IsDebug() bool              { return b.enabled(hclog.Debug) }
func (b *bridge) IsInfo() bool               { return b.enabled(hclog.Info) }
func (b *bridge) IsWarn() bool               { return b.enabled(hclog.Warn) }
func (b *bridge) IsError() bool              { return b.enabled(hclog.Error) }

func (b *bridge) ImpliedArgs() []any { return b.args }
func (b *bridge) Name() string       { return b.name }

func (b *bridge) With(args ...any) hclog.Logger {
	return &bridge{mute: b.mute, few: b.few, log: b.log.With(plain(args)...), name: b.name, args: append(b.args[:len(b.args):len(b.args)], args...)}
}

func (b *bridge) Named(name string) hclog.Logger      { return b.renamed(b.name + "." + name) }
func (b *bridge) ResetNamed(name string) hclog.Logger { return b.renamed(name) }

func (b *bridge) renamed(name string) hclog.Logger {
	return &bridge{mute: b.mute, few: b.few, log: b.log.With("component", name), name: name, args: b.args}
}

// SetLevel does nothing: the slog handler decides.
func (b *bridge) SetLevel(hclog.Level)  {}
func (b *bridge) GetLevel() hclog.Level { return hclog.NoLevel }
func (b *bridge) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return log.New(b, "", 0)
}
func (b *bridge) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return b }

// Write takes a line of the form "[WARN] memberlist: text".
func (b *bridge) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	at := hclog.Debug
	for tag, l := range map[string]hclog.Level{"[ERR] ": hclog.Error, "[WARN] ": hclog.Warn, "[INFO] ": hclog.Info, "[DEBUG] ": hclog.Debug} {
		if rest, found := strings.CutPrefix(text, tag); found {
			text, at = rest, l
		}
	}
	b.Log(at, text)
	return len(line), nil
}
