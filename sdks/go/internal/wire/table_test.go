package wire

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The types of the table in docs/values.md, by their names there.
var tableTypes = map[string]reflect.Type{
	"bool": reflect.TypeFor[bool](), "int": reflect.TypeFor[int](), "int16": reflect.TypeFor[int16](),
	"uint64": reflect.TypeFor[uint64](), "float32": reflect.TypeFor[float32](), "float64": reflect.TypeFor[float64](),
	"string": reflect.TypeFor[string](), "[]byte": reflect.TypeFor[[]byte](), "*int": reflect.TypeFor[*int](),
	"any": reflect.TypeFor[any](), "json.Number": reflect.TypeFor[json.Number](), "*big.Int": reflect.TypeFor[*big.Int](),
	"time.Time": reflect.TypeFor[time.Time](), "[]int": reflect.TypeFor[[]int](), "[3]int": reflect.TypeFor[[3]int](),
	"map[string]int": reflect.TypeFor[map[string]int](), "json.RawMessage": reflect.TypeFor[json.RawMessage](),
	"struct{ A int }": reflect.TypeFor[struct{ A int }](),
}

type valueTable struct {
	Values []string
	Go     map[string]map[string]string
	Places map[string]string
}

func table(t *testing.T) valueTable {
	raw, err := os.ReadFile("../../../values.json")
	if err != nil {
		t.Fatal(err)
	}
	var read valueTable
	if err := json.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// TestTheTableOfValuesIsTrue tries each value with each type, alone and down to three levels deep.
func TestTheTableOfValuesIsTrue(t *testing.T) {
	table := table(t)
	found := map[string]map[string]string{}
	for name, kind := range tableTypes {
		found[name] = map[string]string{}
		for _, value := range table.Values {
			found[name][value] = outcome(t, kind, value, 0)
			for depth := 1; depth <= 3; depth++ {
				if deep := outcome(t, kind, value, depth); deep != found[name][value] {
					t.Errorf("%s into %s is %q, and %q at depth %d", value, name, found[name][value], deep, depth)
				}
			}
		}
	}
	if !reflect.DeepEqual(found, table.Go) {
		text, _ := json.Marshal(found)
		t.Errorf("sdks/values.json must say, of Go: %s", text)
	}
}

// outcome returns what came back, "kept" if it is the same and "refused" if nothing did.
func outcome(t *testing.T, kind reflect.Type, text string, depth int) string {
	where := path("")
	for level := range depth {
		if level%2 == 0 {
			kind, text = reflect.SliceOf(kind), "["+text+"]"
		} else {
			kind, text = reflect.MapOf(reflect.TypeFor[string](), kind), `{"k":`+text+"}"
		}
	}
	for level := depth; level > 0; level-- {
		if level%2 == 1 {
			where = where.item(0)
		} else {
			where = where.key("k")
		}
	}
	sent, err := Plain(json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	pointer := reflect.New(kind)
	if err := Into(sent, pointer.Interface()); err != nil {
		if !strings.HasPrefix(err.Error(), string(where)) {
			t.Errorf("%s into %s: no path in %v", text, kind, err)
		}
		return "refused"
	}
	back, err := Plain(pointer.Elem().Interface())
	if err != nil {
		return "refused"
	}
	for level := range depth {
		if (depth-level)%2 == 1 {
			back = back.([]any)[0]
		} else {
			back = back.(map[string]any)["k"]
		}
		text = text[strings.IndexAny(text, "[:")+1 : len(text)-1]
	}
	raw, err := json.Marshal(back)
	if err != nil {
		t.Fatal(err)
	}
	if equal([]byte(text), raw) && sameText(text, raw) {
		return "kept"
	}
	return fmt.Sprintf("becomes %s", raw)
}

func TestAnErrorNamesThePlaceAsTheTableSays(t *testing.T) {
	type line struct {
		Price  float64        `json:"price"`
		Counts map[string]int `json:"counts"`
	}
	type order struct {
		ID     int     `json:"id"`
		Lines  []line  `json:"lines"`
		Matrix [][]int `json:"matrix"`
	}
	for text, place := range table(t).Places {
		value, err := Plain(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		var into order
		err = Into(value, &into)
		if err == nil || !strings.HasPrefix(err.Error(), place+": ") {
			t.Errorf("%s: %v, and not at %s", text, err, place)
		}
	}
}

// sameText tells whether two JSON texts have the same form, numbers aside.
func sameText(one string, other []byte) bool {
	var left, right any
	if json.Unmarshal([]byte(one), &left) != nil || json.Unmarshal(other, &right) != nil {
		return false
	}
	return reflect.DeepEqual(left, right)
}

func TestValuesOfWhichNothingWouldBeSentAreRefusedWithTheirPath(t *testing.T) {
	type private struct{ text string }
	for _, one := range []struct {
		value any
		words string
	}{
		{map[string]any{"error": fmt.Errorf("no disk")}, `error: an error (*errors.errorString`},
		{map[string][]any{"all": {1, private{"x"}}}, "all[1]: wire.private has no exported field"},
		{struct{ Inner *private }{&private{"x"}}, "Inner: wire.private has no exported field"},
		{map[string]any{"a": []string{"ok", "cut \xff"}}, "a[1]: a text is not valid UTF-8"},
		{map[string]int{"cut \xff": 1}, "a text is not valid UTF-8"},
		{json.RawMessage(`"\ud83d"`), "not valid UTF-8"},
		{map[string]any{"a": []float64{1, math.NaN()}}, "a[1]: NaN is not a number that JSON can represent"},
		{struct{ F float32 }{float32(math.Inf(1))}, "F: +Inf is not a number that JSON can represent"},
		{[]any{map[string]any{"n": json.Number("1e400")}}, "[0].n: the number 1e400 does not fit"},
		{map[string]map[key]int{"a": {{1}: 1, {2}: 2}}, `a: two keys would be sent as "same"`},
	} {
		words := strings.Replace(one.words, "*errors.errorString", "", 1)
		plain, err := Plain(one.value)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(words, "(")) {
			t.Errorf("%v became %v: %v", one.value, plain, err)
		}
	}
	for _, good := range []any{
		struct{}{}, json.RawMessage(`"\ufffd"`), "\ufffd", json.RawMessage(`"\ud83d\ude00 \\ud83d"`), time.Now(), big.NewInt(3),
	} {
		if _, err := Plain(good); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
}

// key is a type of keys of which all are written the same.
type key struct{ number int }

func (key) MarshalText() ([]byte, error) { return []byte("same"), nil }

func (*key) UnmarshalText([]byte) error { return nil }

func TestWhatWouldBeLostOnItsWayIntoAStructOrMapIsRefused(t *testing.T) {
	type named struct {
		Region string `json:"Region"`
		Count  int    `json:"count,string"`
		When   time.Time
		Small  float32
		Run    func()
	}
	for text, pointer := range map[string]any{
		`{"01":"a","1":"b"}`: new(map[int]string), `{"+1":"b"}`: new(map[int8]string), `{"a":1,"b":2}`: new(map[key]int),
		`{"Region":"a","region":"b"}`: new(named), `{"REGION":"a","region":"b"}`: new(named),
		`{"count":"null"}`: new(named), `{"count":5}`: new(named), `{"When":"2026-11-21T10:00:00.1234567891Z"}`: new(named),
		// the struct cannot be encoded again: it has a function
		`{"Small":0.123456789}`: new(named), `{"Small":16777217}`: new(named),
		`{"a":1}`: new(struct{ a int }), `[{"a":1}]`: new([]struct{ a, b int }), `{"X":1.5}`: new(struct{ X **int }),
	} {
		value, err := Plain(json.RawMessage(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := Into(value, pointer); err == nil {
			t.Errorf("%s became %+v", text, reflect.ValueOf(pointer).Elem())
		}
	}
	for text, pointer := range map[string]any{
		`{"1":"a","-2":"b"}`: new(map[int]string), `{"region":"a","other":1}`: new(named), `{"count":"5"}`: new(named),
		`{"When":"2026-11-21T10:00:00.1234567890Z"}`: new(named), `{"Small":0.1,"unknown":{"a":null}}`: new(named),
		`{}`: new(struct{ a int }), `{"a":1}`: new(struct{}), `{"k":1}`: new(map[key]int),
		`{"2":"b"}`: &map[int]string{1: "a"},
	} {
		value, _ := Plain(json.RawMessage(text))
		if err := Into(value, pointer); err != nil {
			t.Errorf("%s into %T: %v", text, pointer, err)
		}
	}
}

func TestInterfacesReceiveFloatsAtEveryDepth(t *testing.T) {
	type item struct {
		Any  any
		More map[string]*item
	}
	var nested map[string]map[string]any
	var lists map[string][]any
	var items []map[string]item
	for pointer, text := range map[any]string{
		&nested: `{"a":{"b":1.5,"c":[2,{"d":3}]}}`, &lists: `{"a":[1,[2],{"b":3}]}`,
		&items: `[{"x":{"Any":1,"More":{"k":{"Any":[2]}}}}]`,
	} {
		value, _ := Plain(json.RawMessage(text))
		if err := Into(value, pointer); err != nil {
			t.Fatal(err)
		}
		if shown := fmt.Sprintf("%#v", pointer); strings.Contains(shown, "json.Number") {
			t.Error(shown)
		}
	}
	if items[0]["x"].Any != 1.0 || items[0]["x"].More["k"].Any.([]any)[0] != 2.0 || nested["a"]["b"] != 1.5 || lists["a"][0] != 1.0 {
		t.Error(nested, lists, items)
	}
}

func TestNullFitsOnlyWhatHasIt(t *testing.T) {
	type order struct {
		Count int `json:"count"`
		At    time.Time
		Fine  *int
		Lines []struct{ Price float64 }
	}
	for text, words := range map[string]string{
		`{"count":null}`:               "count: null does not fit int",
		`{"COUNT":null}`:               "COUNT: null does not fit int",
		`{"at":null}`:                  "at: null does not fit time.Time",
		`{"lines":[{"price":null}]}`:   "lines[0].price: null does not fit float64",
		`{"fine":null,"lines":null}`:   "",
		`{"lines":[{"price":1},null]}`: "lines[1]: null does not fit struct",
	} {
		var into order
		value, _ := Plain(json.RawMessage(text))
		err := Into(value, &into)
		if (err == nil) != (words == "") || err != nil && !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
