package usage

import (
	"bytes"
	"testing"
	"time"
)

func example() Entry {
	return Entry{
		Kind: KindUse, Time: time.Unix(1_800_000_000, 5).UTC(), Index: 7, KeyID: "0190-key", Version: 3, Operation: "sign", Role: "user", Name: "bob",
		Serial: "0a1b", RequestID: "r1", Bytes: 12, Outcome: Withheld, Of: 4,
	}
}

// encode is an entry's one form.
func encode(e Entry) []byte {
	switch e.Kind {
	case KindUse:
		return appendUse(nil, &e)
	case KindStart:
		return appendStart(nil, &e)
	case KindSegment:
		return appendSegment(nil, e.Time, e.Boot, e.previous)
	default:
		return appendGap(nil, e.Time, e.Missing)
	}
}

func TestEntriesComeBack(t *testing.T) {
	at := time.Unix(1_800_000_000, 5).UTC()
	for _, e := range []Entry{
		example(), {Kind: KindStart, Time: at, Node: "n1", Boot: "b", Cut: 9}, {Kind: KindSegment, Time: at, Boot: "b", previous: [32]byte{1, 2}},
		{Kind: KindGap, Time: at, Missing: 11},
	} {
		data := encode(e)
		got, err := decodeEntry(data)
		if err != nil || got != e {
			t.Errorf("%+v came back as %+v, %v", e, got, err)
		}
		for n := range data {
			if _, err := decodeEntry(data[:n]); err == nil {
				t.Errorf("%d of %d bytes of a record of kind %d are accepted", n, len(data), e.Kind)
			}
		}
		if _, err := decodeEntry(append(data, 0)); err == nil {
			t.Errorf("a byte more is accepted, kind %d", e.Kind)
		}
	}
	for _, data := range [][]byte{nil, {0}, append([]byte{5}, encode(Entry{})[1:]...), appendUse(nil, &Entry{Outcome: 4})} {
		if _, err := decodeEntry(data); err == nil {
			t.Errorf("%x is accepted", data)
		}
	}
}

// TestNoEntryIsLargerThanItsRoom: whatever texts it is given.
func TestNoEntryIsLargerThanItsRoom(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), 1<<16))
	e := Entry{Kind: KindUse, Outcome: Done, KeyID: long, Operation: long, Role: long, Name: long, Serial: long, RequestID: long}
	if n := len(appendUse(nil, &e)) + 2; n > maxEntry {
		t.Errorf("%d bytes", n)
	}
}

// FuzzDecodeEntry: what is accepted has exactly this form.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(encode(example()))
	f.Add(encode(Entry{Kind: KindStart, Node: "n1", Boot: "b"}))
	f.Add(encode(Entry{Kind: KindSegment, Boot: "b"}))
	f.Add(encode(Entry{Kind: KindGap, Missing: 1}))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := decodeEntry(data)
		if err == nil && !bytes.Equal(encode(e), data) {
			t.Errorf("%x is read as %+v", data, e)
		}
	})
}
