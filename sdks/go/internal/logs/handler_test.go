package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"polypod.dev/sdk/go/sdk"
)

func lines(t *testing.T, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		record := map[string]any{}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, record)
	}
	return all
}

func TestRecordsBeforeTheSocketAreSentFirstAndInOrder(t *testing.T) {
	sink, out := &Sink{}, &bytes.Buffer{}
	logger := slog.New(NewHandler(sink, Levels{global: slog.LevelInfo}, "task"))
	logger.Info("one")
	logger.Debug("not wanted")
	logger.Warn("two")
	if err := sink.Connect(out); err != nil {
		t.Fatal(err)
	}
	logger.Error("three")
	var events []any
	for _, record := range lines(t, out) {
		events = append(events, record["event"], record["level"])
	}
	want := []any{"one", "info", "two", "warning", "three", "error"}
	if len(events) != len(want) {
		t.Fatalf("got %v", events)
	}
	for index := range want {
		if events[index] != want[index] {
			t.Fatalf("got %v", events)
		}
	}
}

func TestTheLongestPrefixDecidesTheLevel(t *testing.T) {
	t.Setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "warning")
	t.Setenv("AIRFLOW__LOGGING__NAMESPACE_LEVELS", "a=error, a.b=debug\nbroken =x a.c=notset")
	levels := LevelsFromEnvironment()
	for name, want := range map[string]slog.Level{
		"": slog.LevelWarn, "a": slog.LevelError, "a.b": slog.LevelDebug, "a.b.c": slog.LevelDebug, "ab": slog.LevelWarn,
		"a.x.y": slog.LevelError, "a.c": everything,
	} {
		if got := levels.For(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

func TestGroupsErrorsAndReservedNames(t *testing.T) {
	sink, out := &Sink{}, &bytes.Buffer{}
	_ = sink.Connect(out)
	logger := slog.New(NewHandler(sink, Levels{}, "task"))
	logger.With("logger", "named").WithGroup("g").With("a", 1).Info("e", "b", errors.New("bad"), slog.Group("h", "c", time.Second))
	logger.Info("e", "level", "mine", "func", func() {})
	all := lines(t, out)
	if first := all[0]; first["logger"] != "named" || first["g.a"] != 1.0 || first["g.b"] != "bad" || first["g.h.c"] != "1s" {
		t.Fatalf("got %v", first)
	}
	if second := all[1]; second["level"] != "info" || second["field.level"] != "mine" || second["func"] == nil {
		t.Fatalf("got %v", second)
	}
}

func TestAConnectionIsNeverLoggedWithItsSecrets(t *testing.T) {
	sink, out := &Sink{}, &bytes.Buffer{}
	_ = sink.Connect(out)
	logger := slog.New(NewHandler(sink, Levels{}, "task"))
	connection := sdk.Connection{ID: "c", Password: "s3cret", Extra: "s3cret"}
	logger.Info("e", "c", connection, "list", []any{connection}, "pointer", &connection)
	if strings.Contains(out.String(), "s3cret") {
		t.Fatal(out.String())
	}
}
