package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"testing"
)

func TestWhatIsEncodedIsRead(t *testing.T) {
	body := map[string]any{"type": "X", "n": int64(-5), "big": uint64(math.MaxUint64), "f": 1.5, "l": []any{nil, true, "ü"}}
	data, err := Request(7, body)
	if err != nil {
		t.Fatal(err)
	}
	frame, err := Read(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if frame.ID != 7 || !reflect.DeepEqual(frame.Body, body) || frame.Error != nil {
		t.Fatalf("got %+v", frame)
	}
}

func TestTheEndOfTheStreamIsOnlyCleanBetweenFrames(t *testing.T) {
	data, _ := Answer(0, map[string]any{"type": "X"})
	if _, err := Read(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	for cut := 4; cut < len(data); cut++ {
		if _, err := Read(bytes.NewReader(data[:cut])); err == nil || errors.Is(err, io.EOF) && cut > 4 {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestPlainKeepsIntegersAndFollowsJSONTags(t *testing.T) {
	type value struct {
		Number  int64  `json:"number"`
		Hidden  string `json:"-"`
		Skipped *int   `json:"skipped,omitempty"`
	}
	plain, err := Plain([]any{value{Number: 1 << 60}, uint64(math.MaxUint64), json.Number("1e3")})
	if err != nil {
		t.Fatal(err)
	}
	want := []any{map[string]any{"number": int64(1 << 60)}, uint64(math.MaxUint64), 1000.0}
	if !reflect.DeepEqual(plain, want) {
		t.Fatalf("got %#v", plain)
	}
}

func FuzzRead(f *testing.F) {
	data, _ := Request(1, map[string]any{"type": "X"})
	f.Add(data)
	f.Add([]byte{0, 0, 0, 1, 0xc0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		reader := bytes.NewReader(data)
		for {
			if _, err := Read(reader); err != nil {
				return
			}
		}
	})
}
