package cli

import (
	"fmt"
	"strings"

	"github.com/conclave-vault/conclave/transport/vaultpb"
)

// splitPairs reads the k=v arguments of a flag; a name twice is refused, because only one of them could count.
func splitPairs(flag string, args []string) ([]*vaultpb.Label, error) {
	var pairs []*vaultpb.Label
	seen := map[string]bool{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, badArgument(fmt.Sprintf("--%s %q is not name=value", flag, arg), "")
		}
		if seen[name] {
			return nil, badArgument(fmt.Sprintf("--%s names %q twice", flag, name), "")
		}
		seen[name] = true
		pairs = append(pairs, &vaultpb.Label{Name: name, Value: value})
	}
	return pairs, nil
}

// contextOf reads the --context arguments of a cipher.
func contextOf(args []string) (map[string]string, error) {
	pairs, err := splitPairs("context", args)
	if err != nil || len(pairs) == 0 {
		return nil, err
	}
	context := make(map[string]string, len(pairs))
	for _, p := range pairs {
		context[p.GetName()] = p.GetValue()
	}
	return context, nil
}
