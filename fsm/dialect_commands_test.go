package fsm_test

import (
	"strings"
	"time"

	"github.com/conclave-vault/conclave/fsm"
)

// command makes the proposal of a line; nil for no verb of these.
func (d *dialect) command(verb string) fsm.Command {
	switch verb {
	case "init": // init [dev] [hardware] [cluster=ID] [feature=N]
		c := d.init(d.has("dev"))
		c.ClusterID, c.FeatureLevel, c.Node = d.option("cluster", clusterID), uint32(d.number("feature", 1)), d.node("n1")
		return c
	case "token": // token NODE [label=L] [ttl=15m]
		return fsm.CreateJoinToken{
			ID: uuid("token " + d.option("label", d.word(1))), Node: fsm.NodeID(d.word(1)), Hash: digest(d.word(1)),
			ExpiresAt: d.clock.Add(d.duration("ttl", "15m")),
		}
	case "admit": // admit NODE [label=L] [secret=S] [identity=I] [algorithms=a,b] [hardware]
		return fsm.AdmitNode{
			TokenID: uuid("token " + d.option("label", d.word(1))), TokenHash: digest(d.option("secret", d.word(1))), Node: d.node(d.word(1)),
		}
	case "issue": // issue ROLE NAME SERIAL [ttl=2160h]
		c := certificate(fsm.Role(d.word(1)), d.word(2), d.word(3), d.clock)
		c.NotAfter = d.clock.Add(d.duration("ttl", "2160h"))
		return fsm.RecordCertificate{Certificate: c}
	case "revoke-certificate": // revoke-certificate [role=R] [name=N] [serial=S] [reason=TEXT]
		return fsm.RevokeCertificates{
			Role: fsm.Role(d.option("role", "")), Name: d.option("name", ""), Serial: d.option("serial", ""), Reason: d.option("reason", ""),
		}
	case "seal":
		return fsm.SealCluster{Reason: d.option("reason", "")}
	case "barrier": // barrier INDEX [waited=n2,n3]
		d.options["restriction"] = d.word(1)
		c := fsm.CompleteBarrier{Restriction: d.number("restriction", 0)}
		for _, id := range d.list("waited", "") {
			c.Waited = append(c.Waited, fsm.NodeID(id))
		}
		return c
	case "drain": // drain NODE [reason=TEXT]
		return fsm.DrainNode{Node: fsm.NodeID(d.word(1)), Reason: d.option("reason", "")}
	case "undrain":
		return fsm.UndrainNode{Node: fsm.NodeID(d.word(1))}
	case "remove": // remove NODE [reason=TEXT]
		return fsm.RemoveNode{Node: fsm.NodeID(d.word(1)), Reason: d.option("reason", "")}
	case "device":
		n := d.node(d.word(1))
		n.Device.HSM, n.Device.Library = d.option("model", n.Device.HSM), d.option("library", "")
		for _, algorithm := range d.list("lacks", "") {
			n.Device.Lacks = append(n.Device.Lacks, fsm.Lack{
				Algorithm: algorithm, Why: "CKM_AES_KEY_WRAP_PAD: CKR_KEY_NOT_WRAPPABLE (0x69)", Operations: d.list("cannot", ""),
			})
		}
		return fsm.DescribeDevice{Node: n.ID, Device: n.Device}
	case "create", "rotate", "import":
		return d.material(verb)
	case "activate", "suspend", "resume", "deactivate", "compromise", "revoke", "destroy", "cancel-destroy", "frobnicate":
		return d.change(verb)
	default:
		if c := d.lifecycleCommand(verb); c != nil {
			return c
		}
		return d.ceremonyCommand(verb)
	}
}

func (d *dialect) node(id string) fsm.Node {
	n := node(id)
	n.IdentityKey = []byte("identity of " + d.option("identity", id))
	n.Device.HardwareSafe = d.has("hardware")
	n.Device.Algorithms = d.list("algorithms", strings.Join(everyAlgorithm, ","))
	return n
}

// moment is an option that says how far ahead; the zero time if absent.
func (d *dialect) moment(name string) time.Time {
	if _, ok := d.options[name]; !ok || d.options[name] == "none" {
		return time.Time{}
	}
	return d.clock.Add(d.duration(name, ""))
}

// create NAME [activate=1h] [deactivate=2h] [description=TEXT] [purpose=TEXT] [link=KIND:TARGET] [alg=A] [class=C] [users=a,b] [id=LABEL] [generation=N] [soft] [exportable]; import NAME [the same] [with=IMPORT-KEY]; rotate NAME VERSION [the same]
func (d *dialect) material(verb string) fsm.Command {
	m := material(uint32(d.number("generation", 1)))
	m.HardwareSafe, m.Exportable = !d.has("soft"), d.has("exportable")
	name, id := fsm.KeyName(d.word(1)), fsm.KeyID(uuid(d.option("id", d.word(1))))
	if verb == "rotate" {
		d.options["version"] = d.word(2)
		return fsm.RotateKey{Name: name, ID: id, Version: fsm.Version(d.number("version", 0)), Material: m, ActivateAt: d.moment("activate")}
	}
	c := fsm.CreateKey{ID: id, Name: name, Algorithm: d.option("alg", "ed25519"), Class: d.option("class", ""), Material: m,
		ActivateAt: d.moment("activate"), DeactivateAt: d.moment("deactivate"), Description: d.option("description", ""), Purpose: d.option("purpose", ""),
		Links: d.links("link"),
	}
	if users, ok := d.options["users"]; ok {
		c.Labels = append(c.Labels, fsm.Label{Name: "users", Value: users})
	}
	if verb == "import" { // with=IMPORT-KEY
		return fsm.ImportKey{Key: c, ImportKey: d.option("with", "n1/"+uuid("import key"))}
	}
	return c
}

// ACTION NAME [version=N] [reason=TEXT] [occurred=-1h] [after=168h]
func (d *dialect) change(verb string) fsm.Command {
	c := fsm.ChangeKey{
		Name: fsm.KeyName(d.word(1)), Version: fsm.Version(d.number("version", 0)), Action: fsm.KeyAction(verb),
		Reason: d.option("reason", ""), After: d.duration("after", "0s"),
	}
	if _, ok := d.options["occurred"]; ok {
		c.OccurredAt = d.clock.Add(d.duration("occurred", ""))
	}
	return c
}

func (d *dialect) ceremonyCommand(verb string) fsm.Command {
	who := fsm.CustodianName(d.word(1))
	open := d.latest()
	switch verb {
	case "genesis": // genesis [label=L] [dealer=n1] [threshold=2] [custodians=ada,bo,cy] [ttl=1h] [without=NODE]
		r := d.roster(uint32(d.number("threshold", 2)), d.list("custodians", "ada,bo,cy")...)
		r.Nodes = without(r.Nodes, d.option("without", ""))
		label := d.option("label", "genesis")
		return fsm.StartGenesis{
			ID: fsm.CeremonyID(uuid(label)), Nonce: digest(label), Roster: r, Dealer: fsm.NodeID(d.option("dealer", "n1")),
			DealerBoot: "boot-1", DealerCommitment: digest("dealer"), TTL: d.duration("ttl", "0s"),
		}
	case "commit": // commit WHO [value=V] [by=SIGNER]
		c := commitment(open, d.option("by", d.word(1)), d.option("value", "entropy"))
		c.Custodian = who
		return c
	case "reveal": // reveal WHO [boot=B] [mismatch] [reason=TEXT]
		return fsm.RecordReveal{Ceremony: open.ID, Custodian: who, Matches: !d.has("mismatch"), Reason: d.option("reason", ""), Boot: d.option("boot", "boot-1")}
	case "deal": // deal [boot=B] [generation=N]
		dealt := deal(open.Roster)
		dealt.Generation = uint32(d.number("generation", 1))
		return fsm.PublishDeal{Ceremony: open.ID, Deal: dealt, Boot: d.option("boot", "boot-1")}
	case "acknowledge": // acknowledge WHO [by=SIGNER]
		if open.Deal == nil {
			return fsm.AcknowledgeShare{Ceremony: open.ID, Custodian: who}
		}
		c := acknowledgement(open, d.option("by", d.word(1)))
		c.Custodian = who
		return c
	case "abort": // abort [label=L] [reason=TEXT]
		if l, ok := d.options["label"]; ok {
			open.ID = fsm.CeremonyID(uuid(l))
		}
		return fsm.AbortCeremony{Ceremony: open.ID, Reason: d.option("reason", "")}
	default:
		return d.custodyCommand(verb)
	}
}

func (d *dialect) custodyCommand(verb string) fsm.Command {
	who := fsm.CustodianName(d.word(1))
	open := d.latest()
	switch verb {
	case "unseal": // unseal WHO [label=L] [by=SIGNER] [ttl=1h]
		c := unsealRequest(d.option("label", "unseal"), d.option("label", "unseal"), d.option("by", d.word(1)))
		c.Custodian, c.TTL = who, d.duration("ttl", "0s")
		return c
	case "share": // share WHO NODE [refused] [reason=TEXT]
		return fsm.RecordShareVerdict{Ceremony: open.ID, Custodian: who, Node: fsm.NodeID(d.word(2)), Accepted: !d.has("refused"), Reason: d.option("reason", "")}
	case "unsealed": // unsealed NODE [boot=B] [generation=N] [seen=INDEX] [alone]
		c := fsm.RecordNodeUnsealed{
			Node: fsm.NodeID(d.word(1)), Boot: d.option("boot", "boot-2"), Generation: uint32(d.number("generation", 1)),
			Ceremony: open.ID, Seen: d.number("seen", d.index),
		}
		if d.has("alone") {
			c.Ceremony = ""
		}
		return c
	case "roster": // roster WHO [label=L] [by=SIGNER] [without=NODE] [threshold=N]
		r := d.nextRoster()
		return fsm.StartRoster{
			ID: fsm.CeremonyID(uuid(d.option("label", "roster"))), Nonce: digest(d.option("label", "roster")), Roster: r, Custodian: who,
			Signature: sign(d.option("by", d.word(1)), fsm.RosterMessage(fsm.RosterHash(r))),
		}
	case "sign": // sign WHO [by=SIGNER]
		return fsm.SignRoster{Ceremony: open.ID, Custodian: who, Signature: sign(d.option("by", d.word(1)), fsm.RosterMessage(fsm.RosterHash(open.Roster)))}
	default:
		return nil
	}
}

// latest is the ceremony that a line is about unless it says otherwise.
func (d *dialect) latest() fsm.Ceremony {
	c, _ := d.m.State().LatestCeremony("")
	return c
}

func (d *dialect) nextRoster() fsm.Roster {
	current, _ := d.m.State().Roster()
	next := d.roster(uint32(d.number("threshold", uint64(current.Threshold))), "ada", "bo", "cy")
	next.Version, next.Previous = current.Version+1, fsm.RosterHash(current)
	next.Nodes = without(next.Nodes, d.option("without", ""))
	return next
}

func without(nodes []fsm.RosterNode, id string) []fsm.RosterNode {
	var rest []fsm.RosterNode
	for _, n := range nodes {
		if string(n.ID) != id {
			rest = append(rest, n)
		}
	}
	return rest
}
