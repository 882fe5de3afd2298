package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/conclave-vault/conclave/transport/client"
)

// Options of a dev cluster.
type Options struct {
	Dir   string // empty: DefaultDir
	Nodes int    // 1 to maxNodes; 0: as many as Dir holds, else 3
	// HSM is one kind for all nodes or one for each, hsmSoft or hsmSoftHSM; empty: as Dir has them, else hsmSoft.
	HSM []string
	// Module is the path of SoftHSM's library; empty: searched for.
	Module string
	Stdout io.Writer
	Stderr io.Writer
}

// Names and sizes of the demonstration.
const (
	defaultNodes = 3
	maxNodes     = 7
	adminName    = "admin"
	userName     = "demo"
	threshold    = 2
	// formTime bounds the forming of the cluster; it takes a few seconds.
	formTime = 3 * time.Minute
)

var custodianNames = []string{"alice", "bob", "carol"}

// ErrOptions: the options do not make a cluster.
var ErrOptions = errors.New("dev")

type dev struct {
	layout
	opt    Options
	places []place
	module string // SoftHSM's library, if a node needs it
	// env is that of this process as it was: opening a token here sets what its module reads, which is nobody else's.
	env    []string
	say    func(string, ...any)
	formed chan struct{} // closed when the cluster is ready
	sealed chan struct{} // a token: some node came back
	mu     sync.Mutex    // one ceremony at a time
}

// Run forms the cluster (or takes it up), says "conclave dev: ready" on stdout, and keeps it running until ctx ends.
func Run(ctx context.Context, opt Options) error {
	d, err := newDev(opt)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := d.prepare(); err != nil {
		return err
	}
	places, reserved, err := d.layout.places(ctx, d.opt.Nodes, d.opt.HSM)
	if err != nil {
		return err
	}
	defer reserved.Close()
	d.places = places
	if d.module, err = d.needModule(); err != nil {
		return err
	}
	return d.run(ctx)
}

func newDev(opt Options) (*dev, error) {
	if opt.Nodes < 0 || opt.Nodes > maxNodes {
		return nil, fmt.Errorf("%w: %d nodes; use 1 to %d", ErrOptions, opt.Nodes, maxNodes)
	}
	if opt.Dir == "" {
		dir, err := DefaultDir()
		if err != nil {
			return nil, err
		}
		opt.Dir = dir
	}
	dir, err := filepath.Abs(opt.Dir)
	d := &dev{layout: layout{dir}, opt: opt, env: os.Environ(), formed: make(chan struct{}), sealed: make(chan struct{}, 1)}
	d.say = func(format string, args ...any) { fmt.Fprintf(opt.Stderr, "conclave dev: "+format+"\n", args...) }
	return d, err
}

// run starts what is there, forms what is not, and then watches. Nodes and the watcher end before run returns.
func (d *dev) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		f := &forming{dev: d, start: func(p place) {
			proc := &process{id: p.ID, l: d.layout, say: d.say, wake: d.wake, env: d.env}
			g.Go(func() error { return proc.supervise(ctx, d.formed) })
		}}
		bounded, cancel := context.WithTimeout(ctx, formTime)
		defer cancel()
		if err := f.form(bounded); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		close(d.formed)
		d.announce()
		return d.watch(ctx)
	})
	return g.Wait()
}

func (d *dev) announce() {
	d.say("secrets of this demonstration (PINs, custodians, keys of clients) lie in clear in %s", d.secrets())
	d.say("administrator:  . %s", quote(filepath.Join(d.dir, "env.sh")))
	d.say("user %q:    . %s   (may use keys with --label users=%s)", userName, quote(filepath.Join(d.dir, "user.env.sh")), userName)
	d.say("stop with Ctrl-C; the same command starts the same cluster again")
	fmt.Fprintln(d.opt.Stdout, "conclave dev: ready")
}

// wake tells the watcher that a node came back; it is sealed then.
func (d *dev) wake() {
	select {
	case d.sealed <- struct{}{}:
	default:
	}
}

// watch unseals nodes that ended and were started again. A cluster that somebody sealed by order stays sealed.
func (d *dev) watch(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.sealed:
		}
		if err := d.unsealAgain(ctx); err != nil && ctx.Err() == nil {
			d.say("the node that came back is not unsealed: %v", err)
		}
	}
}

func (d *dev) unsealAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, formTime)
	defer cancel()
	c, err := d.client(adminName, d.addresses()...)
	if err != nil {
		return err
	}
	defer c.Close()
	return d.unsealAll(ctx, c, true)
}

func (d *dev) addresses() []string {
	var all []string
	for _, p := range d.places {
		all = append(all, p.API)
	}
	return all
}

func (d *dev) client(name string, addrs ...string) (*client.Client, error) {
	cfg := client.Config{Addresses: addrs}
	if err := cfg.LoadFiles(d.secret("ca.crt"), d.secret(name+".crt"), d.secret(name+".key")); err != nil {
		return nil, err
	}
	return client.New(cfg)
}
