// A task for everything that a language SDK must and should be able to do. The Java and Go programs have the same tasks.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"polypod.dev/sdk/go/airflow"
	"polypod.dev/sdk/go/sdk"
)

func handlers() []airflow.Registerable {
	var all []airflow.Registerable
	for name, task := range map[string]any{
		"success": success, "nothing": nothing, "fail": fail, "fail_for_good": failForGood, "retry_after": retryAfter, "skip": skip,
		"panic": panics, "crash": crash, "exit_zero": exitZero, "segfault": segfault, "connection": connection,
		"missing_connection": missingConnection, "variables": variables, "xcom": xcom, "bind_by_position": bindByPosition,
		"bind_by_name": bindByName, "bind_leniently": bindByName, "bind_with_default": bindWithDefault,
		"produce": produce, "concurrent": concurrent, "wait": wait, "ignore_signals": ignoreSignals,
		"run_context": runContext, "spam": spam, "big_xcom": bigXCom, "leave_child": leaveChild, "succeed_then_crash": success,
		"long_line": longLine, "linger": success, "slow": slow, "bench_start": benchStart,
		"bench_round_trips": benchRoundTrips, "task_state": taskState, "asset_state": assetState,
		"asset_emit": assetEmit, "asset_read": assetRead, "reschedule": reschedule, "wait_for_run": waitForRun,
		"ask": ask, "note": note, "mask": mask, "settings": settings,
		"echo": echo, "echo_again": echo, "echo_last": echo, "special": special, "typed": typed, "whole": whole, "goexit": goexit, "finish_late": finishLate,
	} {
		all = append(all, airflow.TaskHandler("conformance", name, task))
	}
	return all
}

func main() {
	bundle := airflow.Bundle()
	bundle.Register(handlers()...)
	if err := bundle.Serve(); err != nil {
		log.Fatal(err)
	}
	switch os.Getenv("CONFORMANCE_AFTER") {
	case "crash":
		os.Exit(7)
	case "linger":
		time.Sleep(time.Hour)
	}
}

func success(ctx airflow.Context) (any, error) {
	logger := ctx.Logger()
	logger.Debug("a debug line")
	logger.Info("an info line", "number", 7, "text", "grüße ✓")
	logger.Warn("a warning line")
	logger.Error("an error line")
	logger.With("logger", "noisy.part").Debug("a line of a named logger")
	fmt.Println("a line on stdout")
	fmt.Fprintln(os.Stderr, "a line on stderr")
	return map[string]any{
		"text": "grüße ✓", "integer": 1 << 53, "negative": -5, "float": 1.5, "flag": true, "none": nil,
		"list": []any{1, "two", map[string]any{"three": 3}},
	}, nil
}

func nothing(_ airflow.Context) error { return nil }

func fail(_ airflow.Context) error { return errors.New("this task fails") }

func failForGood(_ airflow.Context) error { return sdk.Fail(errors.New("this task fails for good")) }

func retryAfter(_ airflow.Context) error {
	return sdk.RetryAfter(1500*time.Millisecond, errors.New("again later"))
}

func skip(_ airflow.Context) error { return sdk.Skip("nothing to do") }

func panics(_ airflow.Context) error { panic("this task panics") }

func crash(_ airflow.Context) error {
	os.Exit(7)
	return nil
}

func exitZero(_ airflow.Context) error {
	os.Exit(0)
	return nil
}

func segfault(_ airflow.Context) error {
	signal.Reset(syscall.SIGSEGV)
	// not Go's own handler: what a crash in native code does
	return syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, os.Environ())
}

func connection(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	logger := ctx.Logger()
	found, err := client.GetConnection(ctx, "conformance_db")
	if err != nil {
		return nil, err
	}
	logger.Info("got a connection", "connection", found)
	logger.Info("leaking "+found.Password, "field", map[string]any{"deep": []string{found.Password}})
	fmt.Println("stdout leaks", found.Password)
	fmt.Fprintln(os.Stderr, "stderr leaks", found.Extra)
	return map[string]any{
		"type": found.Type, "host": found.Host, "port": found.Port, "login": found.Login, "schema": found.Schema,
		"password_length": len(found.Password),
	}, nil
}

func missingConnection(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	_, err := client.GetConnection(ctx, "no_such_connection")
	return errors.Is(err, sdk.ConnectionNotFound), nil
}

func variables(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	before, err := client.GetVariable(ctx, "conformance_in")
	if err != nil {
		return nil, err
	}
	if err := client.SetVariable(ctx, "conformance/out", before+"!", "set by a task"); err != nil {
		return nil, err
	}
	after, err := client.GetVariable(ctx, "conformance/out")
	if err != nil {
		return nil, err
	}
	if err := client.DeleteVariable(ctx, "conformance/out"); err != nil {
		return nil, err
	}
	_, gone := client.GetVariable(ctx, "conformance/out")
	return []any{before, after, errors.Is(gone, sdk.VariableNotFound)}, nil
}

func xcom(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	ti := ctx.TaskInstance()
	value, err := client.GetXCom(ctx, ti.DagID, ti.RunID, "success", nil, sdk.XComReturnValueKey, nil)
	if err != nil {
		return nil, err
	}
	if err := client.PushXCom(ctx, ti, "a/key with spaces", map[string]any{"pushed": true}); err != nil {
		return nil, err
	}
	_, none := client.GetXCom(ctx, ti.DagID, ti.RunID, "success", nil, "no_such_key", nil)
	return map[string]any{"seen": value, "none": errors.Is(none, sdk.XComNotFound)}, nil
}

func bindByPosition(_ airflow.Context, text string, number int64, list []string, upstream map[string]any) (any, error) {
	return map[string]any{"text": text, "number": number, "list": list, "upstream": upstream["text"]}, nil
}

type byName struct {
	RegionCode string
	Limit      int `arg:"row_limit"`
	Upstream   struct {
		Text string `json:"text"`
	}
}

func bindByName(_ airflow.Context, arguments byName) (any, error) {
	return map[string]any{
		"region": arguments.RegionCode, "limit": arguments.Limit, "upstream": arguments.Upstream.Text,
	}, nil
}

func produce(ctx airflow.Context) (any, error) { return map[string]any{"text": "grüße ✓"}, nil }

func bindWithDefault(_ airflow.Context, a string) (any, error) { return a, nil }

// taskState counts the tries of the task, in its own store.
func taskState(ctx airflow.Context) (any, error) {
	store := ctx.Client().TaskStateStore()
	var state struct{ Tries int }
	found, err := store.Get(ctx, "a/tries", &state)
	if err != nil {
		return nil, err
	}
	state.Tries++
	if err := errors.Join(store.Set(ctx, "a/tries", state), store.SetFor(ctx, "old", 1, time.Nanosecond)); err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("the first try fails")
	}
	old, err := store.Get(ctx, "old", new(int))
	if err := errors.Join(err, store.Delete(ctx, "a/tries"), store.Clear(ctx)); err != nil {
		return nil, err
	}
	return []any{state.Tries, old}, nil
}

var asset = sdk.Asset{Name: "conformance_asset", URI: "file:///conformance"}

func assetState(ctx airflow.Context) (any, error) {
	byName := ctx.Client().AssetStateStore(sdk.Asset{Name: asset.Name})
	if err := byName.Set(ctx, "rows", 3); err != nil {
		return nil, err
	}
	var rows int
	found, err := ctx.Client().AssetStateStore(sdk.Asset{URI: asset.URI}).Get(ctx, "rows", &rows)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(byName.Delete(ctx, "rows"), byName.Clear(ctx)); err != nil {
		return nil, err
	}
	after, err := byName.Get(ctx, "rows", &rows)
	return []any{found, rows, after}, err
}

func assetEmit(ctx airflow.Context) error {
	ctx.Client().EmitAssetEvent(sdk.Emission{Asset: asset, Extra: map[string]any{"rows": "5"}})
	return nil
}

// assetRead counts the events of the asset, as they are asked for in each way.
func assetRead(ctx airflow.Context) (any, error) {
	counts := []any{}
	for _, query := range []sdk.AssetEventQuery{
		{Name: asset.Name},
		{URI: asset.URI},
		{Name: asset.Name, URI: asset.URI, Limit: 1, Descending: true},
		{Name: asset.Name, After: time.Now()},
	} {
		events, err := ctx.Client().AssetEvents(ctx, query)
		if err != nil {
			return nil, err
		}
		counts = append(counts, len(events))
	}
	return counts, nil
}

// reschedule asks to be started again until a moment that its first attempt has noted.
func reschedule(ctx airflow.Context) (any, error) {
	store := ctx.Client().TaskStateStore()
	var due time.Time
	found, err := store.Get(ctx, "due", &due)
	if err != nil {
		return nil, err
	}
	if !found {
		due = time.Now().Add(time.Second)
		if err := store.Set(ctx, "due", due); err != nil {
			return nil, err
		}
		return nil, sdk.RescheduleAt(due)
	}
	if time.Now().Before(due) {
		return nil, fmt.Errorf("not yet: %w", sdk.RescheduleAt(due))
	}
	return ctx.TaskInstance().TryNumber, nil
}

// waitForRun starts a run and waits for it.
func waitForRun(ctx airflow.Context) (any, error) {
	dagID, runID := "conformance", "triggered-"+ctx.TaskInstance().RunID
	err := ctx.Client().TriggerDagRun(ctx, sdk.DagRunRequest{DagID: dagID, RunID: runID, Conf: map[string]any{"a": 1}})
	if err != nil && !errors.Is(err, sdk.DagRunAlreadyExists) {
		return nil, err
	}
	return ctx.Client().WaitForDagRun(ctx, dagID, runID)
}

func ask(ctx airflow.Context) (any, error) {
	reply, err := ctx.Client().Ask(ctx, sdk.Question{
		Subject: "Go on?", Options: []string{"yes", "no"}, Defaults: []string{"no"}, Timeout: time.Hour,
	})
	return reply.Chosen, err
}

func note(ctx airflow.Context) error {
	return ctx.Client().UpdateDagRunNote(ctx, "a note of the task's")
}

// settings returns what a runtime finds of Airflow's configuration.
func settings(_ airflow.Context) (any, error) {
	found := map[string]string{}
	for _, name := range []string{
		"AIRFLOW__API__BASE_URL", "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "AIRFLOW__TRIGGERER__QUEUES_ENABLED",
		"AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS",
	} {
		found[name] = os.Getenv(name)
	}
	return found, nil
}

func concurrent(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	var group sync.WaitGroup
	answers := make([]string, 20)
	failures := make([]error, 20)
	for index := range answers {
		group.Add(1)
		go func() {
			defer group.Done()
			answers[index], failures[index] = client.GetVariable(ctx, fmt.Sprintf("conformance_%d", index))
		}()
	}
	group.Wait()
	return answers, errors.Join(failures...)
}

func wait(ctx airflow.Context) error {
	logger := ctx.Logger()
	logger.Info("waiting")
	select {
	case <-ctx.Done():
		logger.Info("stopping; cleaning up")
		return errors.New("ended early")
	case <-time.After(5 * time.Minute):
		return errors.New("nobody told it to end")
	}
}

func ignoreSignals(ctx airflow.Context) error {
	logger := ctx.Logger()
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	logger.Info("waiting")
	time.Sleep(5 * time.Minute)
	return nil
}

func runContext(ctx airflow.Context) (any, error) {
	ti, run := ctx.TaskInstance(), ctx.DagRun()
	return map[string]any{
		"dag_id": ti.DagID, "task_id": ti.TaskID, "run_id": ti.RunID, "try_number": ti.TryNumber,
		"mapped": ti.MapIndex != nil, "run_dag_id": run.DagID, "conf": run.Conf, "has_logical_date": run.LogicalDate != nil,
	}, nil
}

func spam(ctx airflow.Context) (any, error) {
	logger := ctx.Logger()
	lines := 50_000
	if wanted, ok := ctx.DagRun().Conf["lines"].(float64); ok {
		lines = int(wanted)
	}
	for number := range lines {
		logger.Info("spam", "number", number)
	}
	return lines, nil
}

func bigXCom(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	size := 4 << 20
	if wanted, ok := ctx.DagRun().Conf["bytes"].(float64); ok {
		size = int(wanted)
	}
	ti := ctx.TaskInstance()
	if err := client.PushXCom(ctx, ti, "big", strings.Repeat("x", size)); err != nil {
		return nil, err
	}
	value, err := client.GetXCom(ctx, ti.DagID, ti.RunID, ti.TaskID, nil, "big", nil)
	if err != nil {
		return nil, err
	}
	return len(value.(string)), nil
}

func leaveChild(_ airflow.Context) (any, error) {
	child := exec.Command("sleep", "300")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, err
	}
	return child.Process.Pid, nil
}

func longLine(ctx airflow.Context) (any, error) {
	logger := ctx.Logger()
	logger.Info(strings.Repeat("y", 10<<20))
	return nil, nil
}

func mask(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	secret := strings.Join([]string{"found", "at", "run", "time"}, "-")
	if err := client.MaskSecret(ctx, secret); err != nil {
		return nil, err
	}
	logger := ctx.Logger()
	logger.Info("logged in with " + secret)
	return nil, nil
}

func slow(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	logger := ctx.Logger()
	seconds := 3.0
	if wanted, ok := ctx.DagRun().Conf["seconds"].(float64); ok {
		seconds = wanted
	}
	logger.Info("waiting")
	time.Sleep(time.Duration(seconds * float64(time.Second)))
	value, err := client.GetVariable(ctx, "conformance_in")
	return value, err
}

// started is as early as a Go program can look at the clock.
var started = time.Now()

// benchStart says how many milliseconds the runtime waited for StartupDetails.
func benchStart(_ airflow.Context) (any, error) {
	return float64(time.Since(started).Microseconds()) / 1000, nil
}

// benchRoundTrips says how many milliseconds a number of variable reads took.
func benchRoundTrips(ctx airflow.Context) (any, error) {
	client := ctx.Client()
	number, _ := ctx.DagRun().Conf["number"].(float64)
	begin := time.Now()
	for range int(number) {
		if _, err := client.GetVariable(ctx, "conformance_in"); err != nil {
			return nil, err
		}
	}
	return float64(time.Since(begin).Microseconds()) / 1000, nil
}
