package binding

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

type first struct{}

func literal(name string, value any) Argument {
	return Argument{Kind: "literal", Name: name, Value: value}
}

func byDefault(name string, value any) Argument {
	return Argument{Kind: "literal", Name: name, Value: value, FromDefault: true}
}

// call returns the result and what was warned of.
func call(t *testing.T, fn any, given ...Argument) (any, []string, error) {
	t.Helper()
	made, err := New(fn, reflect.TypeFor[first]())
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	pull := func(taskID string) (any, error) {
		if taskID == "none" {
			return nil, nil
		}
		return map[string]any{"text": taskID}, nil
	}
	warn := func(_ string, names ...any) { warnings = append(warnings, names[1].(string)) }
	got, err := made.Call(first{}, Caller{Pull: pull, Warn: warn}, given)
	return got, warnings, err
}

type arguments struct {
	RegionCode string
	Limit      int `arg:"row_limit"`
}

func echo(_ first, given arguments) (any, error) { return given, nil }

func TestOneStructIsBoundByName(t *testing.T) {
	for _, given := range [][]Argument{
		{literal("row_limit", 3), literal("region_code", "uk")},
		{literal("ROWLIMIT", 3), literal("regionCode", "uk")},
		{byDefault("row_limit", 3), literal("region_code", "uk")},
		{literal("rowlimit", 4), literal("row_limit", 3), literal("RegionCode", "uk")},
	} {
		got, _, err := call(t, echo, given...)
		if err != nil || got != (arguments{"uk", 3}) {
			t.Error(given, got, err)
		}
	}
}

func TestWhatMatchesNothingIsAWarning(t *testing.T) {
	for _, one := range []struct {
		fn       any
		given    []Argument
		want     any
		warnings string
	}{
		{echo, []Argument{literal("region_code", "uk")}, arguments{"uk", 0}, "[row_limit]"},
		{echo, []Argument{literal("region_code", "uk"), literal("x", 1), byDefault("y", 2)}, arguments{"uk", 0}, "[row_limit x]"},
		{echo, []Argument{}, arguments{}, "[RegionCode row_limit]"},
		{func(first) (any, error) { return 1, nil }, []Argument{literal("x", 1), byDefault("y", 2)}, 1, "[x]"},
	} {
		got, warnings, err := call(t, one.fn, one.given...)
		if err != nil || got != one.want || fmt.Sprint(warnings) != one.warnings {
			t.Error(one.given, got, warnings, err)
		}
	}
}

func TestOneArgumentThatNoFieldClaimsIsTheWholeValue(t *testing.T) {
	type order struct{ Customer string }
	fn := func(_ first, given order) (any, error) { return given, nil }
	got, warnings, err := call(t, fn, literal("extracted", map[string]any{"Customer": "Ada"}), byDefault("y", 2))
	if err != nil || got != (order{"Ada"}) || warnings != nil {
		t.Error(got, warnings, err)
	}
	// a tag says that the struct is meant to be bound by name
	got, warnings, err = call(t, echo, literal("extracted", map[string]any{"RegionCode": "uk"}))
	if err != nil || got != (arguments{}) || len(warnings) != 3 {
		t.Error(got, warnings, err)
	}
}

func TestPositions(t *testing.T) {
	fn := func(_ first, a int, b string) (any, error) { return fmt.Sprintf("%d %s", a, b), nil }
	for _, given := range [][]Argument{
		{literal("x", 1), literal("y", "z")},
		{literal("x", 1), byDefault("y", "z")},
		{literal("x", 1), byDefault("new", true), literal("y", "z")},
	} {
		if got, _, err := call(t, fn, given...); err != nil || got != "1 z" {
			t.Error(given, got, err)
		}
	}
}

func TestWhatDoesNotFitFailsBeforeTheBody(t *testing.T) {
	ran := false
	positional := func(_ first, a int, b string) error { ran = true; return nil }
	named := func(_ first, given arguments) error { ran = true; return nil }
	for _, one := range []struct {
		fn      any
		given   []Argument
		message string
	}{
		{positional, []Argument{literal("a", 1)}, "takes 2 argument(s) and was given 1 (a)"},
		{positional, []Argument{literal("a", 1), byDefault("b", "x"), byDefault("c", 1)}, "was given 3 (a, b, c)"},
		{positional, []Argument{literal("a", "x"), literal("b", "y")}, `argument "a" does not fit int`},
		{positional, nil, "Airflow sends a mapped stub no arguments"},
		{named, nil, "Airflow sends a mapped stub no arguments"},
		{named, []Argument{literal("row_limit", "many")}, `argument "row_limit" does not fit int`},
	} {
		_, _, err := call(t, one.fn, one.given...)
		if err == nil || !strings.Contains(err.Error(), one.message) {
			t.Errorf("got %v, want %q", err, one.message)
		}
	}
	if ran {
		t.Error("a body ran")
	}
}

func TestAnOlderSchemaIsNoCallWithoutArguments(t *testing.T) {
	warn := func(string, ...any) {}
	made, err := New(func(_ first, given arguments) error { return nil }, reflect.TypeFor[first]())
	if err != nil {
		t.Fatal(err)
	}
	_, err = made.Call(first{}, Caller{Warn: warn, OlderSchema: true}, nil)
	if err == nil || !strings.Contains(err.Error(), "2026-06-16, which has no arguments") {
		t.Error(err)
	}
}

func TestAJSONTagNamesAnArgument(t *testing.T) {
	type tagged struct {
		Limit int    `json:"row_limit,omitempty"`
		Text  string `json:"-"`
	}
	fn := func(_ first, given tagged) (any, error) { return given, nil }
	for _, name := range []string{"row_limit", "rowLimit", "limit"} {
		got, warnings, err := call(t, fn, literal(name, 3), literal("text", "t"))
		if err != nil || got != (tagged{3, "t"}) || warnings != nil {
			t.Error(name, got, warnings, err)
		}
	}
}

func TestAnXComThatNobodyLeftIsTheZeroValue(t *testing.T) {
	fn := func(_ first, value map[string]any) (any, error) { return len(value), nil }
	for taskID, want := range map[string]int{"some": 1, "none": 0} {
		got, _, err := call(t, fn, Argument{Kind: "xcom", Name: "value", TaskID: taskID})
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", taskID, got, err)
		}
	}
}

func TestAFunctionThatIsNoTaskIsRefused(t *testing.T) {
	var none func(first) error
	for _, fn := range []any{
		1, none, func() error { return nil }, func(first) {}, func(first) int { return 0 }, func(int) error { return nil },
		func(first, ...int) error { return nil }, func(first, arguments, int) error { return nil },
	} {
		if _, err := New(fn, reflect.TypeFor[first]()); err == nil {
			t.Errorf("%T was accepted", fn)
		}
	}
}

func TestWhatIsDeclaredIsWhatIsBound(t *testing.T) {
	type embedded struct{ Text string }
	type wide struct {
		embedded
		Limit  *int `arg:"row_limit"`
		When   time.Time
		Any    any
		Ratio  float64
		hidden int
	}
	for _, one := range []struct {
		fn   any
		want string
	}{
		{func(first) error { return nil }, "map[binding:named params:[]]"},
		{func(_ first, a []string, b map[string]int) error { return nil },
			"map[binding:positional params:[map[exact_name:false name:<nil> value_schema:map[type:array]] " +
				"map[exact_name:false name:<nil> value_schema:map[type:object]]]]"},
		{func(_ first, given wide) error { return nil },
			"map[binding:named params:[map[exact_name:false name:Text value_schema:map[type:string]] " +
				"map[exact_name:false name:row_limit value_schema:<nil>] map[exact_name:false name:When value_schema:<nil>] " +
				"map[exact_name:false name:Any value_schema:<nil>] " +
				"map[exact_name:false name:Ratio value_schema:map[type:number]]]]"},
	} {
		made, err := New(one.fn, reflect.TypeFor[first]())
		if err != nil || fmt.Sprint(made.Declare()) != one.want {
			t.Errorf("%v: %v", err, made.Declare())
		}
	}
}
