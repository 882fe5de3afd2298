package transport

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/conclave-vault/conclave/fsm"
	"github.com/conclave-vault/conclave/transport/vaultpb"
	"github.com/conclave-vault/conclave/vault"
	"github.com/conclave-vault/conclave/vault/ceremony"
)

// conversion is one converter to protobuf, seen from outside: which field of the message tells which field of the domain.
type conversion struct {
	value  any // filled, a pointer
	toPB   func() proto.Message
	from   map[string][]string // message field → fields that it tells; absent: the one of the same name
	hidden map[string]string   // fields that callers are not shown → why
}

func conversions() map[string]conversion {
	const internal, secret = "the state machine's own bookkeeping", "key material, even wrapped, stays in the cluster"
	key := filled[fsm.Key]()
	key.Primary = key.Versions[0].Version
	version, event, status, node := filled[fsm.KeyVersion](), filled[fsm.Event](), filled[vault.NodeStatus](), filled[vault.ListedNode]()
	certificate, record, head, roster := filled[fsm.Certificate](), filled[vault.Record](), filled[vault.Head](), filled[fsm.Roster]()
	open, step, commitment, deal := filled[fsm.Ceremony](), filled[fsm.CeremonyStep](), filled[fsm.EntropyCommitment](), filled[fsm.Deal]()
	verdict, answer, label, custodian := filled[fsm.ShareVerdict](), filled[vault.ShareVerdict](), filled[fsm.Label](), filled[fsm.Custodian]()
	page, rosters, lack := filled[vault.EventPage](), filled[vault.Rosters](), filled[fsm.Lack]()
	checkpoint, proven := filled[vault.Checkpoint](), filled[vault.ProvenEvent]()
	budget, approval := filled[fsm.Budget](), filled[fsm.Approval]()
	effect, link, destruction, receipt := filled[fsm.ClassEffect](), filled[fsm.Link](), filled[fsm.Destruction](), filled[fsm.Receipt]()
	uses, limit, holder := filled[fsm.Uses](), filled[fsm.UseLimit](), filled[fsm.UseHolder]()
	inUse := fsm.Uses{Limit: *limit, KnownSince: uses.KnownSince, Versions: []fsm.VersionUses{uses.Versions[0]}}
	inUse.Versions[0].Version = version.Version
	usedVersion := func() proto.Message {
		return addUses(&vaultpb.Key{Versions: []*vaultpb.KeyVersion{versionToPB(*version)}}, inUse).GetVersions()[0]
	}
	return map[string]conversion{
		"limit":  {limit, func() proto.Message { return limitToPB(*limit) }, nil, nil},
		"holder": {holder, func() proto.Message { return holderToPB(*holder) }, nil, nil},
		"uses": {uses, func() proto.Message { return keyBudgetToPB(*uses) }, map[string][]string{
			"spent_operations": {"Spent"}, "spent_bytes": {"Spent"}, "reserved_operations": {"Reserved"}, "reserved_bytes": {"Reserved"},
			"reserved": {"Holders"}, "window_started_at": {"Since"}, "renewed_at": {"Renewed"},
		}, map[string]string{"KnownSince": "the key tells it", "Versions": "the versions tell it"}},
		"key": {key, func() proto.Message { return addExport(addUses(keyToPB(*key), inUse), *key, true) },
			map[string][]string{
				"state": {"Primary", "Versions"}, "primary_version": {"Primary"}, "description": {"Metadata"}, "purpose": {"Metadata"}, "links": {"Metadata"},
				"exportable": {"NeverExportable"},
			}, nil},
		"version": {version, usedVersion, map[string][]string{
			"last_used_at": {"Version"}, "encryptions": {"Version"}, "encryption_bound": {"Version"},
			"master_generation": {"Generation"}, "origin": {"Imported"}, "activate_at": {"Dates"}, "deactivate_at": {"Dates"}, "processing_ended_at": {"Dates"},
			"exported_at": {"Dates"},
		},
			map[string]string{
				"ChangedIndex": internal, "Before": internal, "PublicKey": "GetPublicKey shows it", "Blob": secret, "MAC": secret,
			}},
		"event": {event, func() proto.Message { return eventToPB(*event) }, nil, nil},
		"node status": {status, func() proto.Message { return nodeStatusToPB(*status) }, map[string][]string{"hsm_library": {"Library"}},
			nil},
		"node": {node, func() proto.Message { return nodeToPB(*node) }, map[string][]string{
			"addr": {"APIAddr"}, "hsm": {"Device"}, "hsm_library": {"Device"}, "hardware_safe": {"Device"}, "algorithms": {"Device"}, "lacks": {"Device"},
			"capabilities": {"Device"},
		}, map[string]string{
			"IdentityKey": "it is in the certificate that the node shows", "Certificate": "the node shows it", "Secrets": "sealed secrets stay in the cluster",
			"UnsealedBoot": internal, "UnsealedAt": "status asks the node itself", "DrainedAt": "standing says so", "RemovedAt": "standing says so",
		}},
		"certificate": {certificate, func() proto.Message { return certificateToPB(*certificate) }, map[string][]string{"revoked": {"RevokedAt"}},
			map[string]string{"IssuedAt": "the log has it"}},
		"checkpoint":  {checkpoint, func() proto.Message { return checkpointToPB(*checkpoint) }, nil, nil},
		"proven":      {proven, func() proto.Message { return provenToPB(*proven) }, nil, nil},
		"record":      {record, func() proto.Message { return recordToPB(*record) }, nil, nil},
		"head":        {head, func() proto.Message { return headToPB(*head) }, nil, nil},
		"roster":      {roster, func() proto.Message { return rosterToPB(*roster) }, nil, nil},
		"step":        {step, func() proto.Message { return stepToPB(*step) }, nil, nil},
		"deal":        {deal, func() proto.Message { return dealToPB(deal) }, nil, nil},
		"verdict":     {verdict, func() proto.Message { return verdictToPB(*verdict) }, nil, map[string]string{"Index": internal}},
		"answer":      {answer, func() proto.Message { return nodeVerdictToPB(*answer) }, nil, nil},
		"budget":      {budget, func() proto.Message { return budgetToPB(*budget) }, nil, nil},
		"approval":    {approval, func() proto.Message { return approvalToPB(*approval) }, nil, nil},
		"effect":      {effect, func() proto.Message { return effectToPB(*effect) }, nil, nil},
		"link":        {link, func() proto.Message { return linkToPB(*link) }, nil, nil},
		"destruction": {destruction, func() proto.Message { return destructionToPB(destruction) }, nil, nil},
		"receipt":     {receipt, func() proto.Message { return receiptToPB(*receipt) }, nil, nil},
		"lack":        {lack, func() proto.Message { return lackToPB(*lack) }, nil, map[string]string{"Operations": "the capabilities have them"}},
		"label":       {label, func() proto.Message { return labelToPB(*label) }, nil, nil},
		"custodian":   {custodian, func() proto.Message { return custodianToPB(*custodian) }, nil, nil},
		"commitment":  {commitment, func() proto.Message { return commitmentToPB(*commitment) }, nil, map[string]string{"Signature": "checked by every replica already"}},
		"ceremony": {open, func() proto.Message { return ceremonyToPB(*open) }, nil,
			map[string]string{"StartedIndex": internal, "DealerBoot": internal}},
		"event page": {page, func() proto.Message { return eventsToPB(*page) }, map[string][]string{"items": {"Events"}, "next_page_token": {"Next"}}, nil},
		"rosters": {rosters, func() proto.Message { return mastersToPB(*rosters) },
			map[string][]string{"rosters": {"Chain"}, "master": {"Master", "Mastered"}}, nil},
	}
}

// TestConversionsForgetNoField: every field of the message is filled from a filled value; and when one field of the value is taken
// away, exactly those fields of the message change that tell it. So no field is forgotten, on either side, and none is swapped.
func TestConversionsForgetNoField(t *testing.T) {
	for name, c := range conversions() {
		t.Run(name, func(t *testing.T) {
			full := proto.Clone(c.toPB()) // a message may share arrays with its value
			everyFieldIsSet(t, full)
			value := reflect.ValueOf(c.value).Elem()
			for _, field := range fieldsOf(value) {
				f := value.FieldByIndex(field.Index)
				kept := reflect.New(f.Type()).Elem()
				kept.Set(f)
				f.SetZero()
				changed := changedFields(full, c.toPB())
				f.Set(kept)
				want := c.tellers(full, field.Name)
				if _, hidden := c.hidden[field.Name]; hidden == (len(want) > 0) {
					t.Errorf("field %s is told by %v and hidden: %v", field.Name, want, hidden)
				}
				if diff := cmp.Diff(want, changed); diff != "" {
					t.Errorf("without %s other fields change than should (-want +got):\n%s", field.Name, diff)
				}
			}
		})
	}
}

// fieldsOf lists the fields of a struct, those of embedded ones in their place.
func fieldsOf(v reflect.Value) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool { return f.Anonymous })
}

func descriptors(m proto.Message) []protoreflect.FieldDescriptor {
	fields := m.ProtoReflect().Descriptor().Fields()
	all := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range all {
		all[i] = fields.Get(i)
	}
	return all
}

func everyFieldIsSet(t *testing.T, m proto.Message) {
	t.Helper()
	for _, d := range descriptors(m) {
		if !m.ProtoReflect().Has(d) {
			t.Errorf("field %s of %s is never filled", d.Name(), m.ProtoReflect().Descriptor().Name())
		}
	}
}

func changedFields(a, b proto.Message) []string {
	var changed []string
	for _, d := range descriptors(a) {
		if !a.ProtoReflect().Get(d).Equal(b.ProtoReflect().Get(d)) {
			changed = append(changed, string(d.Name()))
		}
	}
	return changed
}

// tellers are the message's fields that tell the named one.
func (c conversion) tellers(m proto.Message, field string) []string {
	var all []string
	for _, d := range descriptors(m) {
		from, listed := c.from[string(d.Name())]
		same := !listed && strings.EqualFold(strings.ReplaceAll(string(d.Name()), "_", ""), field)
		if same || slices.Contains(from, field) {
			all = append(all, string(d.Name()))
		}
	}
	return all
}

// filled makes a value in which no field is zero and no two are equal (but for booleans and enumerations).
func filled[T any]() *T {
	v, seed := new(T), 0
	fill(reflect.ValueOf(v).Elem(), &seed)
	return v
}

func fill(v reflect.Value, seed *int) {
	*seed++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, *seed, 5e6, time.UTC)))
		return
	case fsm.KeyState:
		v.Set(reflect.ValueOf(fsm.StateSuspended))
		return
	case fsm.BarrierState:
		v.Set(reflect.ValueOf(fsm.BarrierPending))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("s" + strings.Repeat("x", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*seed))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), seed)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), seed)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), seed)
		}
	default:
		panic("a field of kind " + v.Kind().String() + ": teach fill what to put there")
	}
}

func TestAbsentStaysAbsent(t *testing.T) {
	for name, m := range map[string]proto.Message{
		"version": versionToPB(fsm.KeyVersion{State: fsm.StateActive}), "event": eventToPB(fsm.Event{}), "ceremony": ceremonyToPB(fsm.Ceremony{}),
	} {
		for _, d := range descriptors(m) {
			if d.Kind() == protoreflect.MessageKind && d.Message().FullName() == "google.protobuf.Timestamp" && m.ProtoReflect().Has(d) {
				t.Errorf("%s: an absent time became %v", name, m.ProtoReflect().Get(d))
			}
		}
	}
	if barrierToPB(fsm.Barrier{}) != nil || dealToPB(nil) != nil || ceremonyToPB(fsm.Ceremony{}).GetDeal() != nil {
		t.Error("an absent part became an empty one")
	}
	if m := mastersToPB(vault.Rosters{Master: *filled[fsm.Master]()}); m.GetMaster() != nil {
		t.Error("a master before the genesis")
	}
	if !moment(nil).IsZero() || duration(nil) != 0 || stamp(time.Time{}) != nil || each(nil, labelToPB) != nil {
		t.Error("nothing became something")
	}
}

func TestMasterToPB(t *testing.T) {
	m := filled[fsm.Master]()
	got := mastersToPB(vault.Rosters{Master: *m, Mastered: true}).GetMaster()
	want := &vaultpb.Master{Generation: m.Generation, Threshold: m.Threshold, Commitments: m.Commitments}
	if !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	everyFieldIsSet(t, got)
}

// TestDeviceToPB: TestConversionsForgetNoField sees a node's device as one field only.
func TestDeviceToPB(t *testing.T) {
	got := nodeToPB(vault.ListedNode{Node: fsm.Node{Device: fsm.Device{
		HSM: "card", Library: "libcard 9.1", HardwareSafe: true, Algorithms: []string{"a", "b"}, Lacks: []fsm.Lack{{Algorithm: "c", Why: "no CKM_C"}},
	}}})
	want := &vaultpb.Node{
		Hsm: "card", HsmLibrary: "libcard 9.1", HardwareSafe: true, Algorithms: []string{"a", "b"}, JoinedAt: got.GetJoinedAt(),
		Lacks: []*vaultpb.Lack{{Algorithm: "c", Why: "no CKM_C"}}, Standing: "serving",
	}
	if !proto.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestBarrierToPB(t *testing.T) {
	for state, word := range map[fsm.BarrierState]string{fsm.BarrierPending: "pending", fsm.BarrierDone: "done"} {
		got := barrierToPB(fsm.Barrier{State: state, Index: 9, Waited: []fsm.NodeID{"n2", "n3"}})
		if want := (&vaultpb.Barrier{State: word, Index: 9, WaitedFor: []string{"n2", "n3"}}); !proto.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		everyFieldIsSet(t, got)
	}
}

func custodians() *rapid.Generator[fsm.Custodian] {
	return rapid.Custom(func(t *rapid.T) fsm.Custodian {
		return fsm.Custodian{
			Name: fsm.CustodianName(rapid.String().Draw(t, "name")), Recipient: rapid.String().Draw(t, "recipient"),
			SigningKey: rapid.SliceOf(rapid.Byte()).Draw(t, "key"),
		}
	})
}

func TestRosterRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := fsm.Roster{
			Version: rapid.Uint32().Draw(t, "version"), ClusterID: rapid.String().Draw(t, "cluster"), Threshold: rapid.Uint32().Draw(t, "threshold"),
			Custodians: rapid.SliceOf(custodians()).Draw(t, "custodians"),
			Nodes: rapid.SliceOf(rapid.Custom(func(t *rapid.T) fsm.RosterNode {
				return fsm.RosterNode{ID: fsm.NodeID(rapid.String().Draw(t, "id")), ExchangeKey: rapid.SliceOf(rapid.Byte()).Draw(t, "key")}
			})).Draw(t, "nodes"),
			Previous: [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "previous")),
		}
		wire, err := proto.Marshal(rosterToPB(r))
		if err != nil {
			t.Fatal(err)
		}
		var m vaultpb.Roster
		if err := proto.Unmarshal(wire, &m); err != nil {
			t.Fatal(err)
		}
		back, err := rosterFromPB(&m)
		if diff := cmp.Diff(r, back, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
	})
}

func TestAProposedRosterBringsNoSignatures(t *testing.T) {
	r, err := rosterFromPB(rosterToPB(*filled[fsm.Roster]()))
	if err != nil || r.Signatures != nil {
		t.Errorf("%v, %v: signatures come one at a time, each checked", r.Signatures, err)
	}
}

func TestRosterWithAnImpossibleHash(t *testing.T) {
	for size, ok := range map[int]bool{0: true, 1: false, 31: false, 32: true, 33: false} {
		if _, err := rosterFromPB(&vaultpb.Roster{Previous: make([]byte, size)}); (err == nil) != ok || (err != nil && !errors.Is(err, vault.ErrInvalid)) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestLabelRoundTrip(t *testing.T) {
	l := *filled[fsm.Label]()
	if back := labelFromPB(labelToPB(l)); back != l {
		t.Errorf("%v became %v", l, back)
	}
}

func TestChangeFromPB(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	r := &vaultpb.ChangeKeyRequest{
		RequestId: "id", Name: "a/b", Version: 7, Action: vaultpb.KeyAction_KEY_ACTION_COMPROMISE, Reason: "lost laptop",
		OccurredAt: timestamppb.New(at), After: durationpb.New(36 * time.Hour),
	}
	everyFieldIsSet(t, r) // a new field of the request needs a line here
	want := vault.Change{Name: "a/b", Version: 7, Action: fsm.ActionCompromise, Reason: "lost laptop", OccurredAt: at, After: 36 * time.Hour}
	if diff := cmp.Diff(want, changeFromPB(r)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(vault.Change{}, changeFromPB(nil)); diff != "" {
		t.Error(diff)
	}
}

// TestEveryActionIsKnown: the enumeration's names are those of the state machine's actions; an unspecified one is none.
func TestEveryActionIsKnown(t *testing.T) {
	seen := map[fsm.KeyAction]bool{}
	for number, name := range vaultpb.KeyAction_name {
		got := actions[vaultpb.KeyAction(number)]
		want := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "KEY_ACTION_"), "_", "-"))
		if number == 0 {
			want = ""
		}
		if string(got) != want || seen[got] {
			t.Errorf("%s is action %q, want %q once", name, got, want)
		}
		seen[got] = true
	}
	if got := changeFromPB(&vaultpb.ChangeKeyRequest{Action: 99}).Action; got != "" {
		t.Errorf("action 99 of a newer client is %q", got)
	}
}

func TestNodeShareFromPB(t *testing.T) {
	m := &vaultpb.SealedNodeShare{Node: "n1", Sealed: []byte{1, 2}}
	everyFieldIsSet(t, m)
	if diff := cmp.Diff(ceremony.NodeShare{Node: "n1", Sealed: []byte{1, 2}}, nodeShareFromPB(m)); diff != "" {
		t.Error(diff)
	}
}

func TestSignInput(t *testing.T) {
	for _, prehashed := range []bool{false, true} {
		in := signInput([]byte("data"), prehashed, "ecdsa")
		if in.Prehashed != prehashed || string(in.Scheme) != "ecdsa" || (string(in.Digest) == "data") != prehashed || (string(in.Message) == "data") == prehashed {
			t.Errorf("%+v", in)
		}
	}
}

// TestNodeActionsFromPB: every order that callers can name is one that the vault knows.
func TestNodeActionsFromPB(t *testing.T) {
	want := map[vaultpb.NodeAction]vault.NodeAction{
		vaultpb.NodeAction_NODE_ACTION_UNSPECIFIED: "", vaultpb.NodeAction_NODE_ACTION_DRAIN: vault.NodeDrain,
		vaultpb.NodeAction_NODE_ACTION_UNDRAIN: vault.NodeUndrain, vaultpb.NodeAction_NODE_ACTION_REMOVE: vault.NodeRemove,
	}
	for number := range vaultpb.NodeAction_name {
		action := vaultpb.NodeAction(number)
		if got, known := want[action]; !known || nodeActions[action] != got {
			t.Errorf("%s becomes %q", action, nodeActions[action])
		}
	}
}
