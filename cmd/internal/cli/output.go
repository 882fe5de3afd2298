package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// Formats of --output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// formats lists them as users are told.
var formats = []string{formatTable, formatJSON, formatYAML}

// checkOutput refuses a format that does not exist before anything is done in the cluster.
func (e *Env) checkOutput() error {
	if f := e.flags.output; !slices.Contains(formats, f) {
		return badArgument(fmt.Sprintf("unknown output format %q; there are: %s", f, strings.Join(formats, ", ")), "")
	}
	return nil
}

// structured reports whether the user wants the object and not what is easiest to read.
func (e *Env) structured() bool { return e.flags.output != formatTable || e.flags.field != "" }

// Print writes v to stdout in the chosen format: a protobuf message, or anything that has a JSON form.
func (e *Env) Print(_ *cobra.Command, v any) error { return e.print(v, nil) }

// print is Print with the columns of the arrays in v, by the name of the member that holds them.
func (e *Env) print(v any, columns map[string][]column) error {
	o, err := documentOf(v)
	if err != nil {
		return err
	}
	switch {
	case e.flags.field != "":
		return e.printField(o)
	case e.structured():
		return e.printTree(o)
	}
	return e.write(describe(o, columns))
}

// printTree writes an object or a part of one as YAML if that was asked for, else as JSON.
func (e *Env) printTree(v any) error {
	if e.flags.output == formatYAML {
		text, err := encodeYAML(v)
		if err != nil {
			return err
		}
		return e.write(string(text))
	}
	text, err := encode(v)
	if err != nil {
		return err
	}
	return e.write(string(text) + "\n")
}

// printField writes one field raw: texts unquoted, objects and lists as JSON or YAML, null as an empty line.
func (e *Env) printField(o object) error {
	value, err := lookUp(o, e.flags.field)
	if err != nil {
		return err
	}
	switch value := value.(type) {
	case nil:
		return e.write("\n")
	case string:
		return e.write(strings.TrimSuffix(value, "\n") + "\n")
	}
	return e.printTree(value)
}

func (e *Env) write(text string) error {
	if _, err := e.deps.Stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing to stdout: %w", err)
	}
	return nil
}

// lookUp follows a path: names and list positions from 0, with dots between. The whole rest of the path is tried as
// a name first, so that a label whose name has dots can be reached.
func lookUp(v any, path string) (any, error) {
	switch v := v.(type) {
	case object:
		for _, m := range v {
			if m.name == path {
				return m.value, nil
			}
		}
		first, rest, deeper := strings.Cut(path, ".")
		for _, m := range v {
			if deeper && m.name == first {
				return lookUp(m.value, rest)
			}
		}
		return nil, noField(path, names(v))
	case []any:
		first, rest, deeper := strings.Cut(path, ".")
		i, err := strconv.Atoi(first)
		if err != nil || i < 0 || i >= len(v) {
			return nil, noField(path, fmt.Sprintf("positions 0 to %d", len(v)-1))
		}
		if !deeper {
			return v[i], nil
		}
		return lookUp(v[i], rest)
	}
	return nil, noField(path, "nothing below it")
}

func names(o object) string {
	all := make([]string, len(o))
	for i, m := range o {
		all[i] = m.name
	}
	return strings.Join(all, ", ")
}

func noField(path, there string) error {
	return badArgument(fmt.Sprintf("the answer has no field %q; there are: %s", path, there), "-o json shows the whole answer")
}
