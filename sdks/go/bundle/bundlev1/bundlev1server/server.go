// Package bundlev1server runs a bundle: it connects to the supervisor, runs one task, and reports how it ended.
package bundlev1server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"polypod.dev/sdk/go/bundle/bundlev1"
	"polypod.dev/sdk/go/internal/comm"
	"polypod.dev/sdk/go/internal/logs"
	"polypod.dev/sdk/go/internal/task"
	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

// MetadataSentinel starts the line that `--airflow-metadata` prints.
const MetadataSentinel = "__AIRFLOW_METADATA__ "

const dialTimeout = 30 * time.Second

// ErrFlagsIncomplete says that the program was not started by a supervisor.
var ErrFlagsIncomplete = errors.New(
	"--comm=HOST:PORT and --logs=HOST:PORT are both required: a bundle is started by a supervisor, not by hand",
)

// Serve runs the bundle as its command line says. It returns nil only if the task's end was delivered: main must turn
// an error into a non-zero exit code, which is how the supervisor learns of it.
func Serve(provider bundlev1.BundleProvider) error {
	commAddr, logsAddr, metadata := parse(os.Args[1:])
	if metadata {
		return dump(provider, os.Stdout)
	}
	if commAddr == "" || logsAddr == "" {
		return ErrFlagsIncomplete
	}
	return run(provider, commAddr, logsAddr)
}

func parse(arguments []string) (commAddr, logsAddr string, metadata bool) {
	for _, argument := range arguments {
		if value, found := strings.CutPrefix(argument, "--comm="); found {
			commAddr = value
		} else if value, found := strings.CutPrefix(argument, "--logs="); found {
			logsAddr = value
		} else if argument == "--airflow-metadata" {
			metadata = true
		}
	}
	return commAddr, logsAddr, metadata
}

func dump(provider bundlev1.BundleProvider, out io.Writer) error {
	bundle, err := register(provider)
	if err != nil {
		return err
	}
	dags := map[string]any{}
	for dagID, tasks := range bundle.Tasks() {
		dags[dagID] = map[string]any{"tasks": tasks}
	}
	raw, err := json.Marshal(map[string]any{"dags": dags})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s%s\n", MetadataSentinel, raw)
	return err
}

func register(provider bundlev1.BundleProvider) (bundle bundlev1.Bundle, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			err = fmt.Errorf("registering Dags: %v", problem)
		}
	}()
	bundle = bundlev1.New()
	if err := provider.RegisterDags(bundle); err != nil {
		return nil, fmt.Errorf("registering Dags: %w", err)
	}
	return bundle, nil
}

func run(provider bundlev1.BundleProvider, commAddr, logsAddr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	sink := &logs.Sink{}
	levels := logs.LevelsFromEnvironment()
	slog.SetDefault(slog.New(logs.NewHandler(sink, levels, "task")))
	logger := slog.New(logs.NewHandler(sink, levels, "polypod.sdk"))

	dialer := net.Dialer{Timeout: dialTimeout}
	logsConn, err := dialer.DialContext(ctx, "tcp", logsAddr)
	if err != nil {
		sink.Abandon()
		return fmt.Errorf("connecting to the logs socket: %w", err)
	}
	defer logsConn.Close()
	if err := sink.Connect(logsConn); err != nil {
		return fmt.Errorf("writing to the logs socket: %w", err)
	}
	commConn, err := dialer.DialContext(ctx, "tcp", commAddr)
	if err != nil {
		logger.Error("cannot connect to the comm socket", "error", err)
		return fmt.Errorf("connecting to the comm socket: %w", err)
	}
	channel := comm.Open(commConn)
	defer channel.Close()

	bundle, err := register(provider)
	if err != nil {
		logger.Error("the bundle's Dags cannot be registered", "error", err)
		return err
	}
	first, err := channel.First(ctx)
	if err != nil {
		logger.Error("no StartupDetails", "error", err)
		return err
	}
	details, err := parseDetails(first)
	if err != nil {
		logger.Error("StartupDetails cannot be understood", "error", err)
		return err
	}
	outcome := execute(ctx, bundle, details, &comm.Client{Channel: channel}, logger)
	if err := channel.Finish(first.ID, outcome); err != nil {
		logger.Error("the task's end could not be sent", "error", err)
		return fmt.Errorf("sending the task's end: %w", err)
	}
	return nil
}

type startupDetails struct {
	Type string `json:"type"`
	TI   struct {
		ID        string `json:"id"`
		DagID     string `json:"dag_id"`
		TaskID    string `json:"task_id"`
		RunID     string `json:"run_id"`
		TryNumber int    `json:"try_number"`
		MapIndex  *int   `json:"map_index"`
	} `json:"ti"`
	Context struct {
		ShouldRetry bool           `json:"should_retry"`
		Bindings    []task.Binding `json:"arg_bindings"`
		DagRun      struct {
			DagID             string         `json:"dag_id"`
			RunID             string         `json:"run_id"`
			RunType           string         `json:"run_type"`
			LogicalDate       *time.Time     `json:"logical_date"`
			DataIntervalStart *time.Time     `json:"data_interval_start"`
			DataIntervalEnd   *time.Time     `json:"data_interval_end"`
			RunAfter          *time.Time     `json:"run_after"`
			Conf              map[string]any `json:"conf"`
		} `json:"dag_run"`
	} `json:"ti_context"`
}

func parseDetails(frame wire.Frame) (*startupDetails, error) {
	if frame.Error != nil {
		return nil, fmt.Errorf("the supervisor sent an error: %v", frame.Error["error"])
	}
	var details startupDetails
	if err := wire.Into(frame.Body, &details); err != nil {
		return nil, err
	}
	if details.Type != "StartupDetails" {
		return nil, fmt.Errorf("the first message is %q, not StartupDetails", details.Type)
	}
	return &details, nil
}

func (d *startupDetails) context(ctx context.Context) *task.Context {
	ti, dagRun := d.TI, d.Context.DagRun
	index := ti.MapIndex
	if index != nil && *index < 0 {
		index = nil
	}
	return &task.Context{
		Context: ctx,
		TI: sdk.TaskInstance{
			ID: ti.ID, DagID: ti.DagID, RunID: ti.RunID, TaskID: ti.TaskID, TryNumber: ti.TryNumber, MapIndex: index,
		},
		Run: sdk.DagRun{
			DagID: dagRun.DagID, RunID: dagRun.RunID, RunType: dagRun.RunType, LogicalDate: dagRun.LogicalDate,
			DataIntervalStart: dagRun.DataIntervalStart, DataIntervalEnd: dagRun.DataIntervalEnd,
			RunAfter: dagRun.RunAfter, Conf: dagRun.Conf,
		},
	}
}

// execute runs the task and returns the terminal message.
func execute(
	ctx context.Context, bundle bundlev1.Bundle, details *startupDetails, client sdk.Client, logger *slog.Logger,
) map[string]any {
	ti := details.TI
	found, ok := bundle.Lookup(ti.DagID, ti.TaskID)
	if !ok {
		logger.Error("the bundle does not hold this task", "dag_id", ti.DagID, "task_id", ti.TaskID, "dags", bundle.Tasks())
		return terminal("TaskState", "state", "removed")
	}
	runContext := details.context(ctx)
	result, err := call(found, runContext, client, slog.Default(), details.Context.Bindings)
	if err == nil && result != nil {
		err = client.PushXCom(ctx, runContext.TI, sdk.XComReturnValueKey, result)
	}
	if err == nil {
		message := terminal("SucceedTask", "state", "success")
		message["task_outlets"], message["outlet_events"] = []any{}, []any{}
		return message
	}
	var skip *sdk.SkipError
	if errors.As(err, &skip) {
		logger.Info("the task asked to be skipped", "reason", skip.Reason)
		return terminal("TaskState", "state", "skipped")
	}
	logger.Error("the task failed", "error", err)
	var fail *sdk.FailError
	if !details.Context.ShouldRetry || errors.As(err, &fail) {
		return terminal("TaskState", "state", "failed")
	}
	message := terminal("RetryTask", "state", "up_for_retry")
	message["retry_reason"] = cut(err.Error(), 500)
	var retry *sdk.RetryError
	if errors.As(err, &retry) {
		message["retry_delay_seconds"] = retry.After.Seconds()
	}
	return message
}

func call(
	found *task.Task, ctx *task.Context, client sdk.Client, logger *slog.Logger, bindings []task.Binding,
) (result any, err error) {
	defer func() {
		if problem := recover(); problem != nil {
			logger.Error("the task panicked", "panic", fmt.Sprint(problem), "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("panic: %v", problem)
		}
	}()
	return found.Run(ctx, client, logger, bindings)
}

func terminal(kind, key, value string) map[string]any {
	return map[string]any{"type": kind, key: value, "end_date": time.Now().UTC().Format(time.RFC3339Nano)}
}

func cut(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit])
}
