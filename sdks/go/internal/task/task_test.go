package task

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"polypod.dev/sdk/go/sdk"
)

type client struct{ sdk.Client }

func (client) GetXCom(_ context.Context, _, _, taskID string, _ *int, _ string, _ any) (any, error) {
	if taskID == "none" {
		return nil, sdk.XComNotFound
	}
	return map[string]any{"text": taskID}, nil
}

func literal(name string, value any) Binding {
	return Binding{Kind: "literal", Name: name, Value: value}
}

func run(t *testing.T, fn any, bindings ...Binding) (any, error) {
	t.Helper()
	made, err := New(fn)
	if err != nil {
		t.Fatal(err)
	}
	return made.Run(&Context{Context: context.Background()}, client{}, slog.Default(), bindings)
}

func TestWhatIsInjectedMayStandAnywhere(t *testing.T) {
	fn := func(a int, logger *slog.Logger, b string, ctx sdk.TIRunContext, variables sdk.VariableClient, plain context.Context) (any, error) {
		if logger == nil || ctx == nil || variables == nil || plain == nil {
			t.Fatal("something was not injected")
		}
		return []any{a, b}, nil
	}
	got, err := run(t, fn, literal("x", 1), literal("y", "z"))
	if err != nil || got.([]any)[0] != 1 || got.([]any)[1] != "z" {
		t.Fatal(got, err)
	}
}

func TestByName(t *testing.T) {
	type arguments struct {
		RegionCode string
		Limit      int `arg:"row_limit"`
	}
	fn := func(given arguments) (any, error) { return given, nil }
	got, err := run(t, fn, literal("ROWLIMIT", 3), literal("region_code", "uk"))
	if err != nil || got != (arguments{"uk", 3}) {
		t.Fatal(got, err)
	}
}

func TestWhatDoesNotFitFailsBeforeTheBody(t *testing.T) {
	type arguments struct {
		A int `arg:"a"`
	}
	ran := false
	positional := func(a int, b string) error { ran = true; return nil }
	named := func(given arguments) error { ran = true; return nil }
	none := func() error { ran = true; return nil }
	for _, one := range []struct {
		fn       any
		bindings []Binding
		message  string
	}{
		{positional, []Binding{literal("a", 1)}, "takes 2 argument(s) and was given 1 (a)"},
		{positional, []Binding{literal("a", "x"), literal("b", "y")}, `argument "a" does not fit int`},
		{positional, nil, "2026-06-16, which has no arguments"},
		{named, []Binding{literal("b", 1)}, `argument "a" was not given; given: b`},
		{named, []Binding{literal("a", 1), literal("b", 1)}, `no argument "b"`},
		{none, []Binding{literal("a", 1)}, "takes 0 argument(s) and was given 1"},
	} {
		_, err := run(t, one.fn, one.bindings...)
		if err == nil || !strings.Contains(err.Error(), one.message) {
			t.Errorf("got %v, want %q", err, one.message)
		}
	}
	if ran {
		t.Error("a body ran")
	}
}

func TestAnXComThatNobodyLeftIsTheZeroValue(t *testing.T) {
	fn := func(value map[string]any) (any, error) { return len(value), nil }
	for taskID, want := range map[string]int{"some": 1, "none": 0} {
		got, err := run(t, fn, Binding{Kind: "xcom", Name: "value", TaskID: taskID})
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", taskID, got, err)
		}
	}
}

func TestAFunctionThatIsNoTaskIsRefused(t *testing.T) {
	for _, fn := range []any{1, func() {}, func() int { return 0 }, func(...int) error { return nil }} {
		if _, err := New(fn); err == nil {
			t.Errorf("%T was accepted", fn)
		}
	}
}
