package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// maxClassFile is far more than a class needs.
const maxClassFile = 64 << 10

// classFile is a class as a file has it: what `class get -o yaml` prints, or the same in JSON. What the cluster says of a class by itself
// (built_in, created_at, keys, index) is read over.
type classFile struct {
	Name                  string         `yaml:"name"`
	Description           string         `yaml:"description"`
	HardwareOnly          bool           `yaml:"hardware_only"`
	Algorithms            []string       `yaml:"algorithms"`
	Export                bool           `yaml:"export"`
	OriginatorPeriod      span           `yaml:"originator_period"`
	RecipientPeriod       span           `yaml:"recipient_period"`
	RotateEvery           span           `yaml:"rotate_every"`
	RotateUses            uint64         `yaml:"rotate_uses"`
	Budget                *budgetFile    `yaml:"budget"`
	MinDestroyWait        span           `yaml:"min_destroy_wait"`
	Approvals             []approvalFile `yaml:"approvals"`
	MFA                   bool           `yaml:"mfa"`
	Lease                 string         `yaml:"lease"`
	LeaseDuration         span           `yaml:"lease_duration"`
	UsageLog              string         `yaml:"usage_log"`
	Exact                 bool           `yaml:"exact"`
	DecryptWhileSuspended bool           `yaml:"decrypt_while_suspended"`
	Revision              uint64         `yaml:"revision"`

	BuiltIn   any `yaml:"built_in"`
	CreatedAt any `yaml:"created_at"`
	Keys      any `yaml:"keys"`
	Index     any `yaml:"index"`
}

type budgetFile struct {
	Operations uint64 `yaml:"operations"`
	Bytes      uint64 `yaml:"bytes"`
	Period     span   `yaml:"period"`
}

type approvalFile struct {
	Operation string   `yaml:"operation"`
	Quorum    uint32   `yaml:"quorum"`
	Groups    []string `yaml:"groups"`
}

// readClass reads a file strictly: a misspelt control would be a control that is not there.
func (e *Env) readClass(path string) (*vaultpb.Class, error) {
	data, err := e.readInput(path, maxClassFile, "")
	if err != nil {
		return nil, err
	}
	var f classFile
	dec := yaml.NewDecoder(bytes.NewReader(data)) // JSON is YAML
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		return nil, badArgument(fmt.Sprintf("--file %s: %v", path, err), "conclave class get standard -o yaml shows the form")
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, badArgument(fmt.Sprintf("--file %s holds more than one class", path), "")
	}
	return f.class(), nil
}

func (f classFile) class() *vaultpb.Class {
	c := &vaultpb.Class{
		Name: f.Name, Description: f.Description, HardwareOnly: f.HardwareOnly, Algorithms: f.Algorithms, Export: f.Export,
		OriginatorPeriod: f.OriginatorPeriod.message(), RecipientPeriod: f.RecipientPeriod.message(), RotateEvery: f.RotateEvery.message(),
		RotateUses: f.RotateUses, MinDestroyWait: f.MinDestroyWait.message(), Mfa: f.MFA, Lease: f.Lease, LeaseDuration: f.LeaseDuration.message(),
		UsageLog: f.UsageLog, Exact: f.Exact, DecryptWhileSuspended: f.DecryptWhileSuspended, Revision: f.Revision,
	}
	if f.Budget != nil {
		c.Budget = &vaultpb.Budget{Operations: f.Budget.Operations, Bytes: f.Budget.Bytes, Period: f.Budget.Period.message()}
	}
	for _, a := range f.Approvals {
		c.Approvals = append(c.Approvals, &vaultpb.Approval{Operation: a.Operation, Quorum: a.Quorum, Groups: a.Groups})
	}
	return c
}

// parseApproval reads OPERATION:QUORUM or OPERATION:QUORUM:GROUP+GROUP.
func parseApproval(text string) (*vaultpb.Approval, error) {
	parts := strings.Split(text, ":")
	bad := badArgument(fmt.Sprintf("--approval %q is not operation:quorum or operation:quorum:group+group", text), "")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, bad
	}
	n, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return nil, bad
	}
	a := &vaultpb.Approval{Operation: parts[0], Quorum: uint32(n)}
	if len(parts) == 3 {
		a.Groups = strings.Split(parts[2], "+")
	}
	return a, nil
}
