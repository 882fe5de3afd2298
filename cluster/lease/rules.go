package lease

// rules names the parts of the protocol that its tests switch off one at a time, to see that each is missed. Nothing outside
// this package's tests can set one.
type rules uint16

const (
	quorumEcho        rules = 1 << iota // a grant lasts from the majority's evidence, not from now
	floorAtInstall                      // a holder that is behind the floor installs nothing
	driftMargin                         // the leader waits W(d), not d
	countFromSending                    // the holder counts from making its renewal
	waitAfterElection                   // a new leader waits for whoever has not registered
	earlierProcess                      // a new process is not taken for the only one of its node
	answersItsRenewal                   // a grant answers the outstanding renewal of this very process
	keepsItsTerm                        // a holder installs no grant of a term older than it has reported
	separateProcesses                   // a report vouches for the process that made it only
	waitForExpiry                       // the leader waits for the entries in its table
	knownToServe                        // how long a new process has run does not make it the only one of its node
	olderTwin                           // of two processes of a node, the older gets nothing more
	exactFence                          // a fence vouches for its own restriction only
	incumbentOnly                       // a process acts on its leases only if its state has it serve as the node
)

// off is a set of rules that are not obeyed.
func (off rules) has(r rules) bool { return off&r != 0 }
