// A task for everything that a language SDK must and should be able to do. The Java and Go programs have the same tasks.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "polypod.dev/sdk/go/bundle/bundlev1"
	"polypod.dev/sdk/go/bundle/bundlev1/bundlev1server"
	"polypod.dev/sdk/go/sdk"
)

type bundle struct{}

func (bundle) GetBundleVersion() v1.BundleInfo { return v1.BundleInfo{Name: "conformance"} }

func (bundle) RegisterDags(registry v1.Registry) error {
	dag := registry.AddDag("conformance")
	for name, task := range map[string]any{
		"success": success, "fail": fail, "fail_for_good": failForGood, "retry_after": retryAfter, "skip": skip,
		"panic": panics, "crash": crash, "exit_zero": exitZero, "segfault": segfault, "connection": connection,
		"missing_connection": missingConnection, "variables": variables, "xcom": xcom, "bind_by_position": bindByPosition,
		"bind_by_name": bindByName, "concurrent": concurrent, "wait": wait, "ignore_signals": ignoreSignals,
		"run_context": runContext, "spam": spam, "big_xcom": bigXCom, "leave_child": leaveChild, "succeed_then_crash": success,
		"long_line": longLine, "linger": success, "slow": slow, "bench_start": benchStart,
		"bench_round_trips": benchRoundTrips,
	} {
		dag.AddTaskWithName(name, task)
	}
	return nil
}

func main() {
	if err := bundlev1server.Serve(bundle{}); err != nil {
		log.Fatal(err)
	}
	switch os.Getenv("CONFORMANCE_AFTER") {
	case "crash":
		os.Exit(7)
	case "linger":
		time.Sleep(time.Hour)
	}
}

func success(ctx sdk.TIRunContext, logger *slog.Logger) (any, error) {
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

func fail() error { return errors.New("this task fails") }

func failForGood() error { return sdk.Fail(errors.New("this task fails for good")) }

func retryAfter() error { return sdk.RetryAfter(1500*time.Millisecond, errors.New("again later")) }

func skip() error { return sdk.Skip("nothing to do") }

func panics() error { panic("this task panics") }

func crash() error {
	os.Exit(7)
	return nil
}

func exitZero() error {
	os.Exit(0)
	return nil
}

func segfault() error {
	signal.Reset(syscall.SIGSEGV)
	// not Go's own handler: what a crash in native code does
	return syscall.Exec("/bin/sh", []string{"sh", "-c", "kill -SEGV $$"}, os.Environ())
}

func connection(ctx context.Context, client sdk.ConnectionClient, logger *slog.Logger) (any, error) {
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

func missingConnection(ctx context.Context, client sdk.ConnectionClient) (any, error) {
	_, err := client.GetConnection(ctx, "no_such_connection")
	return errors.Is(err, sdk.ConnectionNotFound), nil
}

func variables(ctx context.Context, client sdk.VariableClient) (any, error) {
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

func xcom(ctx sdk.TIRunContext, client sdk.XComClient) (any, error) {
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

func bindByPosition(text string, number int64, list []string, upstream map[string]any) (any, error) {
	return map[string]any{"text": text, "number": number, "list": list, "upstream": upstream["text"]}, nil
}

type byName struct {
	RegionCode string
	Limit      int `arg:"row_limit"`
	Upstream   struct {
		Text string `json:"text"`
	}
}

func bindByName(arguments byName) (any, error) {
	return map[string]any{
		"region": arguments.RegionCode, "limit": arguments.Limit, "upstream": arguments.Upstream.Text,
	}, nil
}

func concurrent(ctx context.Context, client sdk.Client) (any, error) {
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

func wait(ctx context.Context, logger *slog.Logger) error {
	logger.Info("waiting")
	select {
	case <-ctx.Done():
		logger.Info("told to end; cleaning up")
		return errors.New("ended early")
	case <-time.After(5 * time.Minute):
		return errors.New("nobody told it to end")
	}
}

func ignoreSignals(logger *slog.Logger) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	logger.Info("waiting")
	time.Sleep(5 * time.Minute)
	return nil
}

func runContext(ctx sdk.TIRunContext) (any, error) {
	ti, run := ctx.TaskInstance(), ctx.DagRun()
	return map[string]any{
		"dag_id": ti.DagID, "task_id": ti.TaskID, "run_id": ti.RunID, "try_number": ti.TryNumber,
		"mapped": ti.MapIndex != nil, "run_dag_id": run.DagID, "conf": run.Conf, "has_logical_date": run.LogicalDate != nil,
	}, nil
}

func spam(ctx sdk.TIRunContext, logger *slog.Logger) (any, error) {
	lines := 50_000
	if wanted, ok := ctx.DagRun().Conf["lines"].(float64); ok {
		lines = int(wanted)
	}
	for number := range lines {
		logger.Info("spam", "number", number)
	}
	return lines, nil
}

func bigXCom(ctx sdk.TIRunContext, client sdk.XComClient) (any, error) {
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

func leaveChild(logger *slog.Logger) (any, error) {
	child := exec.Command("sleep", "300")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return nil, err
	}
	return child.Process.Pid, nil
}

func longLine(ctx sdk.TIRunContext, logger *slog.Logger) (any, error) {
	logger.Info(strings.Repeat("y", 10<<20))
	return nil, nil
}

func slow(ctx sdk.TIRunContext, client sdk.Client, logger *slog.Logger) (any, error) {
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
func benchStart() (any, error) { return float64(time.Since(started).Microseconds()) / 1000, nil }

// benchRoundTrips says how many milliseconds a number of variable reads took.
func benchRoundTrips(ctx sdk.TIRunContext, client sdk.VariableClient) (any, error) {
	number, _ := ctx.DagRun().Conf["number"].(float64)
	begin := time.Now()
	for range int(number) {
		if _, err := client.GetVariable(ctx, "conformance_in"); err != nil {
			return nil, err
		}
	}
	return float64(time.Since(begin).Microseconds()) / 1000, nil
}
