// Command chaos is a campaign against a real cluster: real processes of the real program, mutual TLS, and a TCP proxy for each way
// from one node to another. It kills, stops, cuts off and slows down nodes while clients sign, suspend, resume, create keys and
// lose their roles; then it judges from the clients' histories and the nodes' usage logs whether anybody signed after an acknowledgement, and whether
// anything acknowledged is gone. scripts/chaos.sh builds and runs it.
//
// What neither clients nor nodes' usage logs can tell it does not judge: a signature that was asked for and recorded before an
// acknowledgement and received after it may have been decided on either side. Those are counted and shown.
//
// Its last two lines are `violations: N` and `acknowledged writes lost: N`; it exits 1 if either is not 0, or if it could not
// finish, or if too little happened to say anything: too few faults, restrictions, reads, or signatures of any one node.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/conclave-vault/conclave/transport/client"
)

// settings of a campaign.
type settings struct {
	binary string        // the program under test
	dir    string        // where everything goes; must be empty
	nodes  int           // 3 to 7
	length time.Duration // of the faults; forming and the final look come on top
	faults int           // at least so many; it goes on until then, and until there was enough to look at
	calm   int           // suspensions that are measured before the first fault, with and without load
	seed   uint64
	// containers, instead of processes: the compose cluster of the repository in this folder; three nodes.
	containers string
	only       string // names of faults, comma separated; empty: all
}

// deck is the faults that are to be played.
func (s settings) deck() []fault {
	all := deck
	if s.containers != "" {
		all = containerDeck
	}
	if s.only == "" {
		return all
	}
	names := strings.Split(s.only, ",")
	return slices.DeleteFunc(slices.Clone(all), func(f fault) bool { return !slices.Contains(names, f.name) })
}

func (s settings) validate() error {
	switch {
	case s.binary == "" && s.containers == "" || s.dir == "":
		return errors.New("give -binary or -containers, and -dir")
	case s.containers != "" && s.nodes != 3:
		return fmt.Errorf("-nodes %d; in containers there are 3", s.nodes)
	case s.nodes < 3 || s.nodes > 7:
		return fmt.Errorf("-nodes %d; 3 to 7 are", s.nodes)
	case s.length < 0 || s.faults < 0 || s.calm < 0:
		return errors.New("a length or number is negative")
	case len(s.deck()) == 0:
		return fmt.Errorf("-only %q names no fault", s.only)
	}
	return nil
}

func main() {
	var s settings
	flag.StringVar(&s.binary, "binary", "", "the program `conclave` under test")
	flag.StringVar(&s.dir, "dir", "", "an empty `folder` for the cluster")
	flag.IntVar(&s.nodes, "nodes", 3, "of the cluster")
	flag.DurationVar(&s.length, "length", 3*time.Minute, "of the faults")
	flag.IntVar(&s.faults, "faults", 0, "at least so many, however long it takes, and never less than one for each 15 seconds of the length")
	flag.IntVar(&s.calm, "calm", 200, "suspensions measured before the first fault")
	flag.StringVar(&s.containers, "containers", "", "run in containers: the repository's `folder`, with docker-compose.yml and scripts/compose.sh")
	flag.StringVar(&s.only, "only", "", "faults to play, comma separated, by the names that the report shows; empty: all")
	flag.Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of the order and the times of faults")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.validate(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	fmt.Printf("seed %d, %d nodes, %s\n", s.seed, s.nodes, s.length)
	r := run(ctx, s)
	r.print(os.Stdout)
	if r.failed() {
		os.Exit(1)
	}
}

// run forms a cluster, harms it, and judges.
func run(ctx context.Context, s settings) *result {
	r := &result{h: newHistory()}
	c, err := s.form(ctx)
	if err != nil {
		r.err = fmt.Errorf("forming the cluster: %w", err)
		return r
	}
	l := newLoad(c, r.h, s.seed)
	err = attack(ctx, s, c, r.h, l)
	err = errors.Join(err, c.heal(), l.end())
	var life lives
	if e := c.serving(ctx, recoverTime); e != nil {
		err = errors.Join(err, e)
	} else {
		var e error
		r.lost, r.violations, life, e = atTheEnd(ctx, c, l.states)
		err = errors.Join(err, e)
	}
	r.states, r.snapshots = len(l.states), c.snapshots()
	r.err = errors.Join(err, c.close())
	r.judge(c, life)
	return r
}

// judge looks at the histories, and at the usage logs of nodes that have ended. Without a lifecycle log the campaign has failed anyway.
func (r *result) judge(c *cluster, life lives) {
	if life != nil {
		r.logged = c.lookAtLogs(r.h, life)
	}
	r.order = judge(r.h.uses, r.h.restrictions, r.h.pauses)
	r.owed = owe(r.h.uses, r.h.restrictions, r.h.pauses)
	broken, err := c.broke()
	r.err = errors.Join(r.err, err)
	r.violations = slices.Concat(r.order.violations, r.owed.violations(), r.h.stale, r.logged.violations, broken, r.violations)
}

func (s settings) form(ctx context.Context) (*cluster, error) {
	if s.containers != "" {
		return formContainers(ctx, s.containers, s.dir)
	}
	return form(ctx, s.binary, s.dir, s.nodes)
}

// attack starts the clients and plays the faults.
func attack(ctx context.Context, s settings, c *cluster, h *history, l *load) error {
	api, err := l.api(c.addresses(0)...)
	if err != nil {
		return err
	}
	if err := l.createClass(api); err != nil {
		return err
	}
	for _, key := range append([]string{steady, drill}, officerKeys...) {
		if err := l.create(api, key, "ed25519"); err != nil {
			return err
		}
	}
	if err := l.create(api, slow, "rsa-3072"); err != nil {
		return err
	}
	f := &faults{deck: s.deck(), c: c, h: h, l: l, api: api, past: map[string]*client.Client{}, dice: rand.New(rand.NewPCG(s.seed, 0))}
	for i, n := range c.nodes {
		if f.past[n.id], err = l.api(c.addresses(i + 1)[:len(c.nodes)-1]...); err != nil {
			return err
		}
	}
	if err := f.calm(ctx, s.calm, func(h *history, d time.Duration) { h.healthy = append(h.healthy, d) }); err != nil {
		return err
	}
	if err := startClients(l); err != nil {
		return err
	}
	if err := f.calm(ctx, s.calm/4, func(h *history, d time.Duration) { h.loaded = append(h.loaded, d) }); err != nil {
		return err
	}
	return f.campaign(ctx, s.length, s.least())
}

func startClients(l *load) error {
	start := []func() error{l.signers, l.reader, l.roles, func() error { return l.writer(0) }, func() error { return l.writer(1) }}
	for i, key := range officerKeys {
		start = append(start, func() error { return l.officer(i, key) })
	}
	for _, begin := range start {
		if err := begin(); err != nil {
			return err
		}
	}
	return nil
}
