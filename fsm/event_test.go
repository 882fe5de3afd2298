package fsm_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/conclave-vault/conclave/fsm"
)

func typeName(v any) string { return fmt.Sprintf("%T", v) }

func sampleEvent() fsm.Event {
	return fsm.Event{
		Leaf: 1, Index: 2, Time: opening, Actor: alice, Action: "key.suspend", Subject: "key/a", SubjectID: uuid("a"), Version: 3,
		From: "active", To: "suspended", Reason: "dōubt", RequestID: requestID(opening, 1), Detail: "d",
	}
}

// TestEventEncodingIsFixed pins the form by a value written down: leaves live for ever.
func TestEventEncodingIsFixed(t *testing.T) {
	e := fsm.Event{Leaf: 1, Index: 2, Time: opening, Actor: "a", Action: "b", Subject: "c", SubjectID: "d", Version: 3, From: "e", To: "f", Reason: "g", RequestID: "h", Detail: "i"}
	want := "01" + "0000000000000001" + "0000000000000002" + "0000019ca8a03e80" +
		"0000000161" + "0000000162" + "0000000163" + "0000000164" + "00000003" +
		"0000000165" + "0000000166" + "0000000167" + "0000000168" + "0000000169"
	if got := hex.EncodeToString(e.Encode()); got != want {
		t.Errorf("encoded as\n%s, the leaves so far are\n%s", got, want)
	}
}

func TestEventRoundTrip(t *testing.T) {
	for _, e := range []fsm.Event{{}, sampleEvent()} {
		back, err := fsm.DecodeEvent(e.Encode())
		if diff := cmp.Diff(e, back); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	good := sampleEvent().Encode()
	distant := bytes.Clone(good)
	distant[17] = 0x7f // the first byte of the time
	for name, data := range map[string][]byte{
		"nothing": nil, "another version": append([]byte{2}, good[1:]...), "something more": append(bytes.Clone(good), 0),
		"a distant time": distant, "too much": make([]byte, 65<<10),
		"bad text": bytes.Replace(good, []byte("dōubt"), []byte("d\xff\xffubt"), 1),
	} {
		if _, err := fsm.DecodeEvent(data); !errors.Is(err, fsm.ErrEvent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range good {
		if _, err := fsm.DecodeEvent(good[:n]); !errors.Is(err, fsm.ErrEvent) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

// FuzzDecodeEventNeverPanics also holds that there is one form for each event.
func FuzzDecodeEventNeverPanics(f *testing.F) {
	f.Add(sampleEvent().Encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := fsm.DecodeEvent(data)
		if err != nil {
			if !errors.Is(err, fsm.ErrEvent) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if !bytes.Equal(e.Encode(), data) {
			t.Fatalf("%x and %x are the same event", data, e.Encode())
		}
	})
}

func TestNamesInWords(t *testing.T) {
	for got, want := range map[string]string{
		fsm.CodeOK.String(): "ok", fsm.CodeUnsupported.String(): "unsupported", fsm.Code(99).String(): "code 99",
		fsm.StatePreActive.String(): "pre-active", fsm.StateDestroyedCompromised.String(): "destroyed-compromised", fsm.KeyState(99).String(): "state 99",
		fsm.OpVerifyMAC.String(): "verify-mac", fsm.Operation(0).String(): "operation 0",
		fsm.BarrierPending.String(): "pending", fsm.BarrierDone.String(): "done", fsm.BarrierNone.String(): "",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for c := fsm.CodeOK; c <= fsm.CodeUnsupported; c++ {
		if s := c.String(); s == "" || strings.HasPrefix(s, "code") {
			t.Errorf("code %d has the name %q", c, s)
		}
	}
}
