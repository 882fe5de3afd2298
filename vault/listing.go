package vault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/vault/policy"
)

// KeyFilter chooses keys. Lists are alternatives, and empty ones everything; of Labels every one must be there, as name or name=value.
type KeyFilter struct {
	Prefix     string
	States     []string // of the primary version
	Classes    []string
	Algorithms []string
	Labels     []string
}

// maxScan bounds the keys that one call looks at.
const maxScan = 100_000

// maxFilter bounds a filter's lists, each of which is looked through for every key.
const maxFilter = 64

func (f KeyFilter) validate() error {
	for what, n := range map[string]int{"states": len(f.States), "classes": len(f.Classes), "algorithms": len(f.Algorithms), "labels": len(f.Labels)} {
		if n > maxFilter {
			return fmt.Errorf("%w: %d %s, at most %d", ErrInvalid, n, what, maxFilter)
		}
	}
	for _, state := range f.States {
		if !knownState(state) {
			return fmt.Errorf("%w: %q is no state of a key", ErrInvalid, state)
		}
	}
	return nil
}

func knownState(name string) bool {
	for s := fsm.StatePreActive; s <= fsm.StateDestroyedCompromised; s++ {
		if s.String() == name {
			return true
		}
	}
	return false
}

func (f KeyFilter) matches(k fsm.Key) bool {
	return among(f.States, k.PrimaryVersion().State.String()) && among(f.Classes, k.Class) && among(f.Algorithms, k.Algorithm) &&
		!slices.ContainsFunc(f.Labels, func(want string) bool { return !labelled(k, want) })
}

func among(list []string, value string) bool { return len(list) == 0 || slices.Contains(list, value) }

func labelled(k fsm.Key, want string) bool {
	name, value, valued := strings.Cut(want, "=")
	return slices.ContainsFunc(k.Labels, func(l fsm.Label) bool { return l.Name == name && (!valued || l.Value == value) })
}

// KeyPage is a page of the catalog. Next is the name to go on after; empty on the last page.
type KeyPage struct {
	Keys  []fsm.Key
	Next  fsm.KeyName
	Index uint64
}

// Keys lists by name what the caller may read and the filter chooses: of everything for an administrator, of the keys it may use for a user.
// A call looks at no more than maxScan keys; a page that this cuts is short, perhaps empty, and Next goes on from there.
func (v *Vault) Keys(ctx context.Context, c policy.Caller, f KeyFilter, after fsm.KeyName, size int) (KeyPage, error) {
	size, err := pageSize(size)
	if err != nil {
		return KeyPage{}, err
	}
	if err := f.validate(); err != nil {
		return KeyPage{}, err
	}
	s, err := v.identified(ctx, c)
	if err != nil {
		return KeyPage{}, err
	}
	page := KeyPage{Index: s.Applied()}
	for looked := 0; ; {
		batch := s.Keys(f.Prefix, after, maxPage)
		for _, k := range batch {
			if !f.matches(k) || policy.Use(s, c, k, true) != nil {
				continue
			}
			if len(page.Keys) == size {
				page.Next = page.Keys[size-1].Name
				return page, nil
			}
			page.Keys = append(page.Keys, k)
		}
		if len(batch) < maxPage {
			return page, nil
		}
		after = batch[len(batch)-1].Name
		if looked += len(batch); looked >= maxScan {
			page.Next = after
			return page, ctx.Err()
		}
	}
}
