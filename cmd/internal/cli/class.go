package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/client"
	"github.com/conclave-vault/conclave/transport/kind"
	"github.com/conclave-vault/conclave/transport/vaultpb"
)

func (e *Env) classCommand() *cobra.Command {
	c := &cobra.Command{Use: "class", Short: "Classes: the controls that are forced on keys"}
	c.AddCommand(e.classCreate(), e.classGet(), e.classList(), e.classUpdate(), e.classDelete())
	return c
}

var classColumns = map[string][]column{
	"items": append(columnsOf("name", "hardware_only", "lease", "usage_log", "min_destroy_wait", "export", "rotate_every", "originator_period"),
		column{"APPROVALS", func(o object) string { return approvalsCell(o.get("approvals")) }}, at("mfa"), at("keys"), at("built_in")),
	"breaks": effectColumns, "follows": effectColumns,
}

var effectColumns = columnsOf("key", "version", "control", "why")

// approvalsCell is use:2,destroy:3.
func approvalsCell(v any) string {
	list, _ := v.([]any)
	var parts []string
	for _, item := range list {
		o, _ := item.(object)
		parts = append(parts, cell(o.get("operation"))+":"+cell(o.get("quorum")))
	}
	return cell(strings.Join(parts, ","))
}

// classArg is a command of exactly one class name, which the shell can complete.
func (e *Env) classArg(use, short string, run func(cmd *cobra.Command, c *client.Client, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: e.completing(firstArgument(e.classNames)),
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error { return run(cmd, c, args[0]) }),
	}
}

// classNames are the classes of the cluster.
func (e *Env) classNames(ctx context.Context, c *client.Client, _ *cobra.Command, _ []string, _ string) ([]string, error) {
	reply, err := c.ListClasses(ctx, &vaultpb.ListClassesRequest{})
	var names []string
	for _, class := range reply.GetItems() {
		names = append(names, described(class.GetName(), class.GetDescription()))
	}
	return names, err
}

func (e *Env) classGet() *cobra.Command {
	return e.classArg("get", "Show the controls of a class", func(cmd *cobra.Command, c *client.Client, name string) error {
		return e.printClass(c.GetClass(cmd.Context(), &vaultpb.GetClassRequest{Name: name}))
	})
}

func (e *Env) printClass(reply *vaultpb.ClassReply, err error) error {
	if err != nil {
		return err
	}
	return e.print(reply, nil)
}

func (e *Env) classList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the classes, built-in ones first", Args: cobra.NoArgs,
		RunE: e.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			reply, err := c.ListClasses(cmd.Context(), &vaultpb.ListClassesRequest{})
			if err != nil {
				return err
			}
			if e.structured() {
				return e.Print(cmd, reply)
			}
			o := message(reply.ProtoReflect())
			items, _ := o.get("items").([]any)
			return e.write(newTable(classColumns["items"]).add(objects(items)))
		}),
	}
}

func (e *Env) classCreate() *cobra.Command {
	flags := &controlFlags{}
	from := ""
	c := e.classArg("create", "Make a class of your own, from a file or from another class and flags", func(cmd *cobra.Command, c *client.Client, name string) error {
		class, err := e.newClass(cmd, c, flags, name, from)
		if err != nil {
			return err
		}
		return e.printClass(c.CreateClass(cmd.Context(), &vaultpb.CreateClassRequest{RequestId: e.flags.requestID, Class: class}))
	})
	c.ValidArgsFunction = cobra.NoFileCompletions // the name is new
	c.Flags().StringVar(&from, "from", fsm.ClassStandard, "class to begin with; flags change it")
	e.completeFlag(c, "from", e.classNames)
	flags.add(c)
	c.MarkFlagsMutuallyExclusive("file", "from")
	return c
}

func (e *Env) newClass(cmd *cobra.Command, c *client.Client, flags *controlFlags, name, from string) (*vaultpb.Class, error) {
	class, err := e.classOr(flags.file, func() (*vaultpb.Class, error) { return classNamed(cmd.Context(), c, from) })
	if err != nil {
		return nil, err
	}
	if err := named(class, name, flags.file); err != nil {
		return nil, err
	}
	if flags.file == "" {
		class.Description = ""
	}
	return class, flags.apply(cmd, class)
}

// classOr is the class in a file, if one is named, else what otherwise returns.
func (e *Env) classOr(file string, otherwise func() (*vaultpb.Class, error)) (*vaultpb.Class, error) {
	if file != "" {
		return e.readClass(file)
	}
	return otherwise()
}

func classNamed(ctx context.Context, c *client.Client, name string) (*vaultpb.Class, error) {
	reply, err := c.GetClass(ctx, &vaultpb.GetClassRequest{Name: name})
	return reply.GetClass(), err
}

// named gives the class its name; a file that names another one is a mistake.
func named(class *vaultpb.Class, name, file string) error {
	if file != "" && class.GetName() != "" && class.GetName() != name {
		return badArgument(fmt.Sprintf("--file %s is of class %q, not %q", file, class.GetName(), name), "")
	}
	class.Name = name
	return nil
}

func (e *Env) classUpdate() *cobra.Command {
	flags := &controlFlags{}
	dryRun := false
	c := e.classArg("update", "Change the controls of a class and so of its keys; lowering needs approval", func(cmd *cobra.Command, c *client.Client, name string) error {
		class, err := e.classOr(flags.file, func() (*vaultpb.Class, error) { return classNamed(cmd.Context(), c, name) })
		if err != nil {
			return err
		}
		if err := named(class, name, flags.file); err != nil {
			return err
		}
		if err := flags.apply(cmd, class); err != nil {
			return err
		}
		if dryRun {
			return e.checkClass(cmd, c, &vaultpb.CheckClassRequest{Class: class})
		}
		return e.printClass(c.UpdateClass(cmd.Context(), &vaultpb.UpdateClassRequest{
			RequestId: e.flags.requestID, Class: class, Revision: class.GetRevision(),
		}))
	})
	flags.add(c)
	dryRunFlag(c, &dryRun)
	return c
}

func dryRunFlag(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "only say what it would raise, lower and break, and what would follow at once; exit 5 if it needs approval, 1 if it would break keys")
}

// checkClass prints the verdict, and fails as the change itself would.
func (e *Env) checkClass(cmd *cobra.Command, c *client.Client, q *vaultpb.CheckClassRequest) error {
	reply, err := c.CheckClass(cmd.Context(), q)
	if err != nil {
		return err
	}
	if err := e.print(reply, classColumns); err != nil {
		return err
	}
	switch {
	case len(reply.GetLowered()) > 0:
		return kind.New(kind.NeedsApproval, strings.Join(reply.GetLowered(), ", ")+" would be lower: that needs approval, which this release cannot collect", nil)
	case len(reply.GetBreaks()) > 0:
		return kind.New(kind.Conflict, "keys stand against it: rotate or destroy what is listed under breaks first", nil)
	}
	return nil
}

func (e *Env) classDelete() *cobra.Command {
	return e.classArg("delete", "Delete a class that no key is of", func(cmd *cobra.Command, c *client.Client, name string) error {
		reply, err := c.DeleteClass(cmd.Context(), &vaultpb.DeleteClassRequest{RequestId: e.flags.requestID, Name: name})
		if err != nil {
			return err
		}
		return e.Print(cmd, reply)
	})
}

// controlFlags are the controls of a class as flags. Only those that were given change anything.
type controlFlags struct {
	file           string
	description    string
	hardware       bool
	algorithms     []string
	export         bool
	originator     span
	recipient      span
	rotate         span
	rotateUses     uint64
	budgetOps      uint64
	budgetBytes    uint64
	budgetPeriod   span
	destroyWait    span
	approvals      []string
	mfa            bool
	lease          string
	usageLog       string
	exact          bool
	whileSuspended bool
}

func (f *controlFlags) add(c *cobra.Command) {
	s := c.Flags()
	s.StringVar(&f.file, "file", "", "the class as YAML or JSON, in the form that get prints; - for stdin")
	s.StringVar(&f.description, "description", "", "what it is for")
	s.BoolVar(&f.hardware, "hardware-only", false, "material is made and used in hardware only")
	s.StringSliceVar(&f.algorithms, "algorithm", nil, "allow only these; repeatable; empty: all")
	s.BoolVar(&f.export, "export", false, "material may be made exportable")
	s.Var(&f.originator, "originator-period", "from activation: how long a version makes new protection, for example 1y; 0: no end")
	s.Var(&f.recipient, "recipient-period", "from activation: how long what it protected may be processed, for example 3y; 0: no end")
	s.Var(&f.rotate, "rotate-every", "rotate by itself after this time, for example 90d; 0: never")
	s.Uint64Var(&f.rotateUses, "rotate-uses", 0, "rotate keys by themselves after so many uses of a version, as nodes report them (AES-GCM: encryptions; others: all but verifications); 0: never")
	s.Uint64Var(&f.budgetOps, "budget-operations", 0, "uses of a key in each budget period; 0: no limit")
	s.Uint64Var(&f.budgetBytes, "budget-bytes", 0, "bytes processed with a key in each budget period; 0: no limit")
	s.Var(&f.budgetPeriod, "budget-period", "for example 1d")
	s.Var(&f.destroyWait, "min-destroy-wait", "least time from scheduling a destruction to doing it, for example 30d")
	s.StringArrayVar(&f.approvals, "approval", nil, "`operation:quorum[:group+group]`, repeatable; operations: "+strings.Join(fsm.ApprovalOperations(), ", "))
	s.BoolVar(&f.mfa, "mfa", false, "whoever changes a key of it must have shown a second factor")
	s.StringVar(&f.lease, "lease", "", "strict, leased or available")
	s.StringVar(&f.usageLog, "usage-log", "", "durable or buffered")
	s.BoolVar(&f.exact, "exact", false, "commit every use before it is done, so that counts are exact")
	s.BoolVar(&f.whileSuspended, "decrypt-while-suspended", false, "decryption goes on while suspended, with a reason")
	complete(c, "algorithm", algorithms()...)
	complete(c, "lease", "strict", "leased", "available")
	complete(c, "usage-log", "durable", "buffered")
}

// apply changes the class by the flags that were given.
func (f *controlFlags) apply(cmd *cobra.Command, class *vaultpb.Class) error {
	budget := class.GetBudget()
	if budget == nil {
		budget = &vaultpb.Budget{}
	}
	for flag, set := range map[string]func(){
		"description": func() { class.Description = f.description }, "hardware-only": func() { class.HardwareOnly = f.hardware },
		"algorithm": func() { class.Algorithms = f.algorithms }, "export": func() { class.Export = f.export },
		"originator-period": func() { class.OriginatorPeriod = f.originator.message() }, "recipient-period": func() { class.RecipientPeriod = f.recipient.message() },
		"rotate-every": func() { class.RotateEvery = f.rotate.message() }, "rotate-uses": func() { class.RotateUses = f.rotateUses },
		"budget-operations": func() { budget.Operations = f.budgetOps }, "budget-bytes": func() { budget.Bytes = f.budgetBytes },
		"budget-period": func() { budget.Period = f.budgetPeriod.message() }, "min-destroy-wait": func() { class.MinDestroyWait = f.destroyWait.message() },
		"mfa": func() { class.Mfa = f.mfa }, "lease": func() { setLease(class, f.lease) }, "usage-log": func() { class.UsageLog = f.usageLog },
		"exact": func() { class.Exact = f.exact }, "decrypt-while-suspended": func() { class.DecryptWhileSuspended = f.whileSuspended },
	} {
		if cmd.Flags().Changed(flag) {
			set()
		}
	}
	if budget.GetOperations() != 0 || budget.GetBytes() != 0 || budget.GetPeriod() != nil {
		class.Budget = budget
	} else {
		class.Budget = nil
	}
	class.Algorithms = slices.DeleteFunc(class.GetAlgorithms(), func(a string) bool { return a == "" }) // --algorithm "" allows all
	if !cmd.Flags().Changed("approval") {
		return nil
	}
	class.Approvals = nil
	for _, text := range f.approvals {
		if text == "" { // --approval "" needs none
			continue
		}
		a, err := parseApproval(text)
		if err != nil {
			return err
		}
		class.Approvals = append(class.Approvals, a)
	}
	return nil
}

// setLease also sets the duration, which follows from the mode.
func setLease(class *vaultpb.Class, mode string) {
	class.Lease, class.LeaseDuration = mode, nil
	if mode == string(fsm.LeaseAvailable) {
		available := span(fsm.AvailableLease)
		class.LeaseDuration = available.message()
	}
}
