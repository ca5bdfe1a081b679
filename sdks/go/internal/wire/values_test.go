package wire

import (
	"encoding/json"
	"math"
	"math/big"
	"math/rand"
	"reflect"
	"strings"
	"testing"
)

func TestNumbersAreExactOrRefused(t *testing.T) {
	huge, _ := new(big.Int).SetString("1180591620717411303425", 10)
	for _, bad := range []any{
		huge, []any{huge}, json.Number("12345678901234567.89"), map[string]any{"a": json.Number("1e400")},
		math.NaN(), math.Inf(1), "cut \xff", map[string]string{"a": "\xed\xa0\xbd"}, json.Number("0.30000000000000000001"),
	} {
		if plain, err := Plain(bad); err == nil {
			t.Errorf("%v became %v", bad, plain)
		}
	}
	for _, good := range []struct{ value, want any }{
		{big.NewInt(1 << 60), int64(1 << 60)}, {json.Number("100.00"), 100.0}, {json.Number("0.1"), 0.1},
		{"\ufffd", "\ufffd"}, {`a\ufffd`, `a\ufffd`}, {uint64(math.MaxUint64), uint64(math.MaxUint64)}, {5e-324, 5e-324},
	} {
		if plain, err := Plain(good.value); err != nil || !reflect.DeepEqual(plain, good.want) {
			t.Errorf("%v became %#v, %v", good.value, plain, err)
		}
	}
}

func TestWhatATargetCannotHoldIsRefused(t *testing.T) {
	const large = int64(1234567890123456789)
	var integer int64
	if err := Into(large, &integer); err != nil || integer != large {
		t.Fatal(integer, err)
	}
	var float float64
	if err := Into(large, &float); err == nil {
		t.Errorf("a float64 took it for %f", float)
	}
	var small float32
	if err := Into(16777217, &small); err == nil {
		t.Errorf("a float32 took it for %f", small)
	}
	if err := Into(0.5, &small); err != nil || small != 0.5 {
		t.Error(err)
	}
	var order struct {
		ID    int64 `json:"id"`
		Price float32
		Extra any
	}
	body := map[string]any{"id": large, "price": 1.5, "extra": []any{large, 3, 0.5}}
	if err := Into(body, &order); err != nil {
		t.Fatal(err)
	}
	want := []any{json.Number("1234567890123456789"), 3.0, 0.5}
	if order.ID != large || !reflect.DeepEqual(order.Extra, want) {
		t.Errorf("got %+v", order)
	}
	if err := Into(map[string]any{"price": 0.1}, &order); err != nil {
		t.Errorf("0.1 is what a float32 writes as 0.1: %v", err)
	}
	err := Into(map[string]any{"price": 16777217}, &order)
	if err == nil || !strings.Contains(err.Error(), "price: 16777217 would become 16777216") {
		t.Error(err)
	}
}

func TestGoValuesGoAroundUnchanged(t *testing.T) {
	chance := rand.New(rand.NewSource(1))
	for range 20_000 {
		value := some(chance, 3)
		plain, err := Plain(value)
		if err != nil {
			t.Fatalf("%#v: %v", value, err)
		}
		data, err := Request(1, map[string]any{"value": plain})
		if err != nil {
			t.Fatal(err)
		}
		frame, err := decode(data[4:])
		if err != nil {
			t.Fatal(err)
		}
		var back any
		if err := Into(frame.Body["value"], &back); err != nil {
			t.Fatalf("%#v: %v", value, err)
		}
		one, _ := json.Marshal(value)
		other, _ := json.Marshal(back)
		if string(one) != string(other) && !equal(one, other) {
			t.Fatalf("%s came back as %s", one, other)
		}
	}
}

func equal(one, other []byte) bool {
	left, _ := generic(one)
	right, _ := generic(other)
	return changed(left, right, "") == nil && changed(right, left, "") == nil
}

func some(chance *rand.Rand, depth int) any {
	switch kind := chance.Intn(8); {
	case kind == 0:
		return chance.Int63() - chance.Int63()
	case kind == 1:
		return math.Float64frombits(chance.Uint64()&^(0x7ff<<52) | uint64(chance.Intn(2047))<<52)
	case kind == 2:
		return string([]rune{rune(chance.Intn(0xd800)), rune(0xe000 + chance.Intn(0x100000))})
	case kind == 3:
		return chance.Uint64()
	case kind == 4 && depth > 0:
		return []any{some(chance, depth-1), nil, true}
	case kind == 5 && depth > 0:
		return map[string]any{"a": some(chance, depth-1), "b": some(chance, depth-1)}
	default:
		return chance.Intn(1000)
	}
}
