package e2e_test

import (
	"slices"
	"testing"
)

// common are the tests that do no harm to their cluster.
var common = []struct {
	name string
	run  func(*testing.T, *devCluster)
}{
	{"DevLeavesWhatTheContractSays", devContract},
	{"DevRunsOncePerFolder", devOnce},
	{"LifeOfAKey", lifeOfAKey},
	{"ClassesAndDates", classesAndDates},
	{"DestructionWaits", destroyWait},
	{"Compromise", compromised},
	{"Revoke", revoked},
	{"VersionsHaveStatesOfTheirOwn", versions},
	{"ListsComeInPages", pages},
	{"BadArguments", badArguments},
	{"ClassesForceControls", classes},
	{"BudgetsAreSharedByAllNodes", budgets},
	{"OpensslVerifies", signatures},
	{"Digests", digests},
	{"SchemesOfRSA", schemes},
	{"OldSignaturesVerify", rotated},
	{"Encryption", encryption},
	{"Sizes", sizes},
	{"DataKeys", dataKeys},
	{"Macs", macs},
	{"OpensslAgrees", agreements},
	{"Encapsulations", encapsulations},
	{"OpensslEncrypts", decryptionKeys},
	{"KeysComeInAndGoOut", inAndOut},
	{"OperationsFitKeys", wrongKind},
	{"KeysAreUsableAtOnceEverywhere", usableAtOnce},
	{"ADemandedIndexIsThereOrRefused", demandedIndex},
	{"UsersSeeTheirKeys", usersSeeTheirKeys},
	{"RolesAreTakenAway", rolesAreTakenAway},
	{"StrangersAreRefused", strangersAreRefused},
	{"OldTLSIsRefused", oldTLS},
	{"GarbageIsSurvived", garbageIsSurvived},
	{"OversizedMessagesAreRefused", oversized},
	{"JoiningNeedsTheRightToken", joinRefusals},
}

// TestCommon runs them all on one cluster, side by side.
func TestCommon(t *testing.T) {
	t.Parallel()
	sideBySide(t, dev(t))
}

// TestCommonOnSoftHSM is the same on PKCS#11 tokens, one for each node: whatever holds for the embedded token holds there.
func TestCommonOnSoftHSM(t *testing.T) {
	t.Parallel()
	softHSM(t)
	sideBySide(t, dev(t, "--hsm", "softhsm"))
}

// TestCommonOnAMixedCluster: two SoftHSM tokens and an embedded one share all keys.
func TestCommonOnAMixedCluster(t *testing.T) {
	t.Parallel()
	softHSM(t)
	sideBySide(t, dev(t, "--hsm", "softhsm,softhsm,soft"), "OpensslVerifies", "SchemesOfRSA", "OldSignaturesVerify", "Encryption", "DataKeys", "Macs",
		"OpensslAgrees", "KeysAreUsableAtOnceEverywhere", "KeysComeInAndGoOut")
}

// sideBySide runs the named common tests, or all.
func sideBySide(t *testing.T, c *devCluster, only ...string) {
	for _, test := range common {
		if len(only) != 0 && !slices.Contains(only, test.name) {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, c)
		})
	}
}
