// Package config is the configuration file of a node: strict YAML, every field with its default and its limit.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/hsm/soft"
)

// Config of a node.
type Config struct {
	// Node is the node's name in the cluster, for ever.
	Node string `yaml:"node"`
	// Datacenter tags the node; default "dc1".
	Datacenter string `yaml:"datacenter"`
	// DataDir holds everything the node keeps; made (0700) by init or join.
	DataDir string `yaml:"data_dir"`
	// API is where clients call; Cluster where nodes call each other; Gossip (optional) where they exchange hints.
	API     Endpoint `yaml:"api"`
	Cluster Endpoint `yaml:"cluster"`
	Gossip  Endpoint `yaml:"gossip"`
	HSM     HSM      `yaml:"hsm"`
	// Seal: "ceremony" (default) needs custodians after every start; "persistent" keeps the master on the token.
	Seal string `yaml:"seal"`
	// Peers gives cluster addresses of nodes that moved while the cluster was down; others are found by the replicated state.
	Peers map[string]string `yaml:"peers"`
	// Join is read once, by a node that belongs to no cluster yet.
	Join Join `yaml:"join"`
	// Network: "lan" (default) or "wan", the timers of the consensus.
	Network string   `yaml:"network"`
	Log     Log      `yaml:"log"`
	Snap    Snapshot `yaml:"snapshot"`
	// UsageLog is the log of single uses of keys on this node's disk.
	UsageLog UsageLog `yaml:"usage_log"`
}

// Endpoint is an address to listen on, and the one that others use; advertise defaults to bind.
type Endpoint struct {
	Bind      string `yaml:"bind"`
	Advertise string `yaml:"advertise"`
}

// HSM says which token, and where its PIN comes from. The PIN itself never stands in this file.
type HSM struct {
	// Type: SoftType (default) or PKCS11Type. There is no fallback from one to the other.
	Type string `yaml:"type"`
	// FIPS lets the token do only what is FIPS-approved; see hsm/fips.
	FIPS   bool   `yaml:"fips"`
	Soft   Soft   `yaml:"soft"`
	PKCS11 PKCS11 `yaml:"pkcs11"`
	PIN    PIN    `yaml:"pin"`
}

// Types of token.
const (
	SoftType   = "soft"   // embedded
	PKCS11Type = "pkcs11" // a device behind a PKCS#11 module
)

// Soft tunes the embedded token.
type Soft struct {
	// Argon2 is the cost of turning the PIN into the key of a new token's file (RFC 9106); a file that exists keeps its own.
	Argon2 Argon2 `yaml:"argon2"`
}

// Argon2 is a cost of argon2id; all zero: the default, 3 passes over 64 MiB with 2 threads.
type Argon2 struct {
	Passes    uint32 `yaml:"passes"`
	MemoryKiB uint32 `yaml:"memory_kib"`
	Threads   uint8  `yaml:"threads"`
}

// Cost is the setting as the token takes it.
func (a Argon2) Cost() soft.Argon2 {
	return soft.Argon2{Time: a.Passes, MemoryKiB: a.MemoryKiB, Threads: a.Threads}
}

// PKCS11 names a token of a module.
type PKCS11 struct {
	// Module is the absolute path of the .so.
	Module string `yaml:"module"`
	// Token is the token's label; Serial its serial number. At least one.
	Token  string `yaml:"token"`
	Serial string `yaml:"serial"`
	// Sessions bounds the operations at a time; 0: twice the processors.
	Sessions int `yaml:"sessions"`
	// Environment is set before the module is loaded: many vendors configure their modules so.
	Environment map[string]string `yaml:"environment"`
}

// PIN has exactly one source.
type PIN struct {
	File   string `yaml:"file"` // mode 0600 or 0400
	FD     *int   `yaml:"fd"`
	Prompt bool   `yaml:"prompt"`
}

// Join names the file with the one-time token.
type Join struct {
	TokenFile string `yaml:"token_file"`
}

// Log of the program, on stderr.
type Log struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // json (default), text
}

// Snapshot tunes the log's compaction; zero: defaults.
type Snapshot struct {
	// Threshold is how many entries since the last snapshot make a new one; default 8192.
	Threshold uint64 `yaml:"threshold"`
	// TrailingLogs are kept behind a snapshot for nodes that are a little behind; default 10240.
	TrailingLogs uint64 `yaml:"trailing_logs"`
	// Interval is how often it is looked whether a snapshot is due; default 2 minutes.
	Interval time.Duration `yaml:"interval"`
}

// minSnapshotInterval keeps a node from doing nothing else.
const minSnapshotInterval = time.Second

func (s Snapshot) validate() error {
	if s.Interval != 0 && s.Interval < minSnapshotInterval {
		return fmt.Errorf("snapshot.interval: %s; at least %s, or leave it out", s.Interval, minSnapshotInterval)
	}
	return nil
}

// UsageLog bounds the log of single uses.
type UsageLog struct {
	// MaxMiB is the size of all its files together, in MiB; 0: 8192. When it is reached keys of classes with a durable usage log are refused.
	MaxMiB uint32 `yaml:"max_mib"`
}

// minUsageMiB leaves room for a few files of the log.
const minUsageMiB = 64

func (u UsageLog) validate() error {
	if u.MaxMiB != 0 && u.MaxMiB < minUsageMiB {
		return fmt.Errorf("usage_log.max_mib: %d; at least %d, or leave it out for 8192", u.MaxMiB, minUsageMiB)
	}
	return nil
}

// ErrConfig wraps every complaint about a configuration file.
var ErrConfig = errors.New("configuration")

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Load reads and checks a file. Relative paths in it are relative to its folder.
func Load(path string) (Config, error) {
	b, err := readFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("%w file %s: %w", ErrConfig, path, err)
	}
	return c.relativeTo(filepath.Dir(path))
}

// readFile refuses a file over the limit: what would be cut off may be a setting.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is too large: at most %d bytes are read", path, maxFile)
	}
	return b, err
}

// Parse is strict: an unknown field is an error that names its line.
func Parse(b []byte) (Config, error) {
	c := Config{Datacenter: "dc1", Seal: "ceremony", Network: "lan", HSM: HSM{Type: SoftType}, Log: Log{Level: "info", Format: "json"}}
	if err := checkPINShape(b); err != nil {
		return Config{}, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("the file has more than one document")
	}
	for _, e := range []*Endpoint{&c.API, &c.Cluster, &c.Gossip} {
		if e.Advertise == "" {
			e.Advertise = e.Bind
		}
	}
	return c, c.validate()
}

func (c Config) relativeTo(dir string) (Config, error) {
	dir, err := filepath.Abs(dir)
	for _, p := range []*string{&c.DataDir, &c.HSM.PIN.File, &c.Join.TokenFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, err
}

func (c Config) validate() error {
	errs := []error{
		fieldError("node", fsm.ValidNodeID(c.Node)),
		required("data_dir", c.DataDir),
		endpoint("api", c.API, true), endpoint("cluster", c.Cluster, true), endpoint("gossip", c.Gossip, false),
		oneOf("seal", c.Seal, "ceremony", "persistent"), oneOf("network", c.Network, "lan", "wan"),
		oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error"), oneOf("log.format", c.Log.Format, "json", "text"),
		c.HSM.validate(), c.Snap.validate(), c.UsageLog.validate(), peers(c.Peers),
	}
	return errors.Join(errs...)
}

func (h HSM) validate() error {
	sources := 0
	for _, set := range []bool{h.PIN.File != "", h.PIN.FD != nil, h.PIN.Prompt} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		return fmt.Errorf("hsm.pin: %d sources; give exactly one of file, fd, prompt", sources)
	}
	if err := oneOf("hsm.type", h.Type, SoftType, PKCS11Type); err != nil {
		return err
	}
	if h.Type != SoftType && h.Soft != (Soft{}) {
		return fmt.Errorf("hsm.soft is set and hsm.type is %s; leave the section out", h.Type)
	}
	return errors.Join(fieldError("hsm.soft.argon2", h.Soft.Argon2.Cost().Validate()), h.PKCS11.validate(h.Type))
}

// Limits of a PKCS#11 section.
const (
	maxSessions     = 1024
	maxEnvironment  = 64
	maxEnvironValue = 4096
)

// envName is a portable name of an environment variable.
var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

func (p PKCS11) validate(kind string) error {
	empty := p.Module == "" && p.Token == "" && p.Serial == "" && p.Sessions == 0 && len(p.Environment) == 0
	switch {
	case kind != PKCS11Type && !empty:
		return fmt.Errorf("hsm.pkcs11 is set and hsm.type is %s; set hsm.type: pkcs11, or leave the section out", kind)
	case kind != PKCS11Type:
		return nil
	case !filepath.IsAbs(p.Module):
		return fmt.Errorf("hsm.pkcs11.module: %q; give the absolute path of the module, for example /usr/lib/softhsm/libsofthsm2.so", p.Module)
	case p.Token == "" && p.Serial == "":
		return errors.New("hsm.pkcs11: give the token's label (token) or its serial")
	case p.Sessions < 0 || p.Sessions > maxSessions:
		return fmt.Errorf("hsm.pkcs11.sessions: %d; 0 to %d are", p.Sessions, maxSessions)
	case len(p.Environment) > maxEnvironment:
		return fmt.Errorf("hsm.pkcs11.environment has %d variables; at most %d are", len(p.Environment), maxEnvironment)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Environment)) {
		// The value is not repeated: some vendors put credentials there, though they belong into files.
		if v := p.Environment[name]; !envName.MatchString(name) || len(v) > maxEnvironValue || strings.Contains(v, "\x00") {
			return fmt.Errorf("hsm.pkcs11.environment: %.128q is no name of a variable, or its value has more than %d bytes or a zero byte", name, maxEnvironValue)
		}
	}
	return nil
}

func fieldError(field string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

func required(field, value string) error {
	if value == "" {
		return fmt.Errorf("%s is missing", field)
	}
	return nil
}

func oneOf(field, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fmt.Errorf("%s: %q; use one of: %s", field, value, strings.Join(allowed, ", "))
}

// endpoint refuses to listen nowhere, and to advertise an address that others cannot call.
func endpoint(field string, e Endpoint, needed bool) error {
	switch {
	case e.Bind == "" && needed:
		return fmt.Errorf("%s.bind is missing", field)
	case e.Bind == "" && e.Advertise != "":
		return fmt.Errorf("%s.advertise without %s.bind", field, field)
	case e.Bind == "":
		return nil
	}
	if _, err := hostPort(field+".bind", e.Bind); err != nil {
		return err
	}
	return callable(field+".advertise", e.Advertise)
}

func callable(field, addr string) error {
	host, err := hostPort(field, addr)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); host == "" || strings.HasSuffix(addr, ":0") || (ip != nil && ip.IsUnspecified()) {
		return fmt.Errorf("%s: %q cannot be called by others; give the address that they use", field, addr)
	}
	return nil
}

// hostPort wants the port as a number: a service's name would mean another port on another host.
func hostPort(field, addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%s: %q is no port from 0 to 65535", field, port)
	}
	return host, nil
}

// peers are called under these addresses by this node.
func peers(all map[string]string) error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(all)) {
		errs = append(errs, fieldError("peers", fsm.ValidNodeID(id)), callable("peers."+id, all[id]))
	}
	return errors.Join(errs...)
}
