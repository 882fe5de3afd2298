package hsm

import "strings"

// Ability is what a token can do with keys of an algorithm: a set, and each of its members.
type Ability uint16

// The abilities. Which of them an algorithm has follows from its family: Algorithm.Abilities.
const (
	CanGenerate    Ability = 1 << iota // make a key inside
	CanImport                          // take a key that was made elsewhere, wrapped for the token, and wrap it under the master without showing it
	CanWrap                            // under the master
	CanUnwrap                          // into a working copy that is checked, sensitive and not extractable
	CanSign                            // by every scheme of the algorithm
	CanDecrypt                         // with a secret key encrypt, too; with a private key, what was encrypted with its public half
	CanMAC                             // and verify
	CanAgree                           // on a shared secret
	CanDecapsulate                     // a shared key
)

// abilityNames in the order of the bits; users read and scripts compare them.
var abilityNames = [...]string{"generate", "import", "wrap", "unwrap", "sign", "decrypt", "mac", "agree", "decapsulate"}

// Names lists the members in the order above; never nil.
func (a Ability) Names() []string {
	names := []string{}
	for i, name := range abilityNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// String is the names with commas between.
func (a Ability) String() string { return strings.Join(a.Names(), ", ") }

// Has reports whether every member of b is one of a.
func (a Ability) Has(b Ability) bool { return a&b == b }

// Abilities is everything that a token can do with keys of a; empty for an unknown algorithm.
func (a Algorithm) Abilities() Ability {
	use := a.use()
	if use == 0 {
		return 0
	}
	return CanGenerate | CanImport | CanWrap | CanUnwrap | use
}

// use is the one thing that keys of a are for.
func (a Algorithm) use() Ability {
	switch a.Family() {
	case FamilyCipher, FamilyDecrypt:
		return CanDecrypt
	case FamilyMAC:
		return CanMAC
	case FamilySign:
		return CanSign
	case FamilyAgree:
		return CanAgree
	case FamilyDecapsulate:
		return CanDecapsulate
	}
	return 0
}

// Capability says what a token can do with an algorithm. Missing explains the first thing that it cannot, in words that name the
// mechanism; empty if there is none.
type Capability struct {
	Algorithm Algorithm
	Can       Ability
	Missing   string
}

// Usable reports whether keys that are made on the token can live their whole life there. Importing is no part of it.
func (c Capability) Usable() bool {
	need := c.Algorithm.Abilities() &^ CanImport
	return need != 0 && c.Can.Has(need)
}

// Lacks is what the algorithm has and the token has not.
func (c Capability) Lacks() Ability { return c.Algorithm.Abilities() &^ c.Can }
