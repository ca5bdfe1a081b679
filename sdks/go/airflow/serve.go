package airflow

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

	"polypod.dev/sdk/go/internal/binding"
	"polypod.dev/sdk/go/internal/comm"
	"polypod.dev/sdk/go/internal/logs"
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

// Serve runs the bundle as its command line says, as the last statement of main: a task, or an answer to the Dag
// processor. It returns nil only if what was asked for was delivered: main must turn an error into a non-zero exit
// code, which is how the supervisor learns of it.
func (b *BundleRef) Serve() error {
	b.mutex.Lock()
	b.serving = true
	b.mutex.Unlock()
	commAddr, logsAddr, metadata := parse(os.Args[1:])
	if metadata {
		return b.dump(os.Stdout)
	}
	if commAddr == "" || logsAddr == "" {
		return ErrFlagsIncomplete
	}
	return b.run(commAddr, logsAddr)
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

func (b *BundleRef) dump(out io.Writer) error {
	dags := map[string]any{}
	for dagID, tasks := range b.tasks() {
		dags[dagID] = map[string]any{"tasks": tasks}
	}
	raw, err := json.Marshal(map[string]any{"dags": dags})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s%s\n", MetadataSentinel, raw)
	return err
}

func (b *BundleRef) run(commAddr, logsAddr string) error {
	ctx, end := context.WithCancelCause(context.Background())
	defer end(nil)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(told)
	go func() {
		select {
		case <-told:
			end(comm.ErrTerminated)
		case <-ctx.Done():
		}
	}()

	sink := &logs.Sink{}
	levels := logs.LevelsFromEnvironment()
	slog.SetDefault(slog.New(logs.NewHandler(sink, levels, "task")))
	logger := slog.New(logs.NewHandler(sink, levels, "polypod.sdk"))

	dialer := net.Dialer{Timeout: dialTimeout}
	logsConn, err := dialer.DialContext(ctx, "tcp", logsAddr)
	if err != nil {
		sink.Abandon()
		// whatever the level: there is no log that could say it
		fmt.Fprintf(os.Stderr, "polypod-sdk: the logs socket %s cannot be used: %v\n", logsAddr, err)
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

	first, err := channel.First(ctx)
	if err != nil {
		logger.Error("the supervisor sent no first message", "error", err)
		return err
	}
	if answer := b.answer(first); answer != nil {
		return channel.Tell(ctx, answer)
	}
	details, err := parseDetails(first)
	if err != nil {
		logger.Error("StartupDetails cannot be understood", "error", err)
		return err
	}
	outcome := b.execute(ctx, details, channel, logger)
	if err := channel.Finish(first.ID, outcome); err != nil {
		logger.Error("the task's end could not be sent", "error", err)
		return fmt.Errorf("sending the task's end: %w", err)
	}
	return nil
}

// answer returns what the Dag processor asks for, nil if it is not it that asks.
func (b *BundleRef) answer(first wire.Frame) map[string]any {
	file, _ := first.Body["file"].(string)
	switch first.Body["type"] {
	case "DagFileParseRequest":
		// this SDK defines no Dags, it only runs tasks of theirs
		return map[string]any{"type": "DagFileParsingResult", "fileloc": file, "serialized_dags": []any{}}
	case "TaskHandlerParseRequest":
		handlers := map[string][]any{}
		for _, one := range b.handlers {
			declared := one.function.Declare()
			declared["task_id"] = one.taskID
			handlers[one.dagID] = append(handlers[one.dagID], declared)
		}
		return map[string]any{"type": "TaskHandlerParsingResult", "fileloc": file, "task_handlers": handlers}
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
		ShouldRetry bool               `json:"should_retry"`
		NextMethod  string             `json:"next_method"`
		Arguments   []binding.Argument `json:"arg_bindings"`
		// MultiTeam is in every context of schema 2026-10-30, and in none before.
		MultiTeam *bool `json:"multi_team"`
		DagRun    struct {
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
	if err := comm.Failure(frame); err != nil {
		return nil, fmt.Errorf("the supervisor sent an error in place of StartupDetails: %w", err)
	}
	var details startupDetails
	if err := wire.Exact(frame.Body, &details); err != nil {
		return nil, err
	}
	if details.Type != "StartupDetails" {
		return nil, fmt.Errorf("the first message is %q, not StartupDetails", details.Type)
	}
	return &details, nil
}

func (d *startupDetails) taskInstance() TaskInstance {
	ti := d.TI
	index := ti.MapIndex
	if index != nil && *index < 0 {
		index = nil
	}
	return TaskInstance{
		ID: ti.ID, DagID: ti.DagID, RunID: ti.RunID, TaskID: ti.TaskID, TryNumber: ti.TryNumber, MapIndex: index,
	}
}

func (d *startupDetails) dagRun() DagRun {
	run := d.Context.DagRun
	return DagRun{
		DagID: run.DagID, RunID: run.RunID, RunType: run.RunType, LogicalDate: run.LogicalDate,
		DataIntervalStart: run.DataIntervalStart, DataIntervalEnd: run.DataIntervalEnd,
		RunAfter: run.RunAfter, Conf: wire.Floats(run.Conf),
	}
}

// execute runs the task and returns the terminal message.
func (b *BundleRef) execute(
	ctx context.Context, details *startupDetails, channel *comm.Channel, logger *slog.Logger,
) map[string]any {
	ti := details.taskInstance()
	found := b.find(ti.DagID, ti.TaskID)
	if found == nil {
		logger.Error("the bundle does not hold this task", "dag_id", ti.DagID, "task_id", ti.TaskID, "dags", b.tasks())
		return terminal("TaskState", "removed")
	}
	client := &comm.Client{Channel: channel, TI: ti, Resumed: details.Context.NextMethod != ""}
	actx := NewContext(ctx, slog.Default(), client, ti, details.dagRun())
	result, err := call(found.function, actx, logger, details)
	if err == nil && result != nil {
		err = client.PushXCom(ctx, ti, sdk.XComReturnValueKey, result)
	}
	return end(err, client, details.Context.ShouldRetry, logger)
}

// end returns the terminal message for what a task has returned.
func end(err error, client *comm.Client, shouldRetry bool, logger *slog.Logger) (message map[string]any) {
	if err == nil {
		message := terminal("SucceedTask", "success")
		message["task_outlets"], message["outlet_events"] = client.Outlets()
		return message
	}
	defer func() {
		if recover() != nil {
			// its Unwrap, As or Is panicked, as of a nil pointer: it is no error of this SDK's
			logger.Error("the task failed", "error", say(err))
			message = failed(shouldRetry, say(err))
		}
	}()
	for wait := err; wait != nil; wait = errors.Unwrap(wait) {
		if message, ok := comm.Suspension(wait); ok {
			logger.Info("the task waits", "for", wait.Error())
			if message["type"] == "RescheduleTask" {
				message["end_date"] = now()
			}
			return message
		}
	}
	var skip *sdk.SkipError
	if errors.As(err, &skip) {
		logger.Info("the task asked to be skipped", "reason", skip.Reason)
		return terminal("TaskState", "skipped")
	}
	reason := say(err)
	logger.Error("the task failed", "error", reason)
	var fail *sdk.FailError
	message = failed(shouldRetry && !errors.As(err, &fail), reason)
	var retry *sdk.RetryError
	if message["type"] == "RetryTask" && errors.As(err, &retry) {
		message["retry_delay_seconds"] = retry.After.Seconds()
	}
	return message
}

func failed(again bool, reason string) map[string]any {
	if !again {
		return terminal("TaskState", "failed")
	}
	message := terminal("RetryTask", "up_for_retry")
	message["retry_reason"] = cut(reason, 500)
	return message
}

// call runs the task's function in a goroutine of its own, which it may end: runtime.Goexit, as FailNow of a test does.
func call(function *binding.Function, actx Context, logger *slog.Logger, details *startupDetails) (result any, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = errors.New("the task ended its goroutine (runtime.Goexit, such as FailNow of a test) and returned nothing")
		defer func() {
			if problem := recover(); problem != nil {
				actx.Logger().Error("the task panicked", "panic", fmt.Sprint(problem), "stack", string(debug.Stack()))
				result, err = nil, fmt.Errorf("panic: %v", problem)
			}
		}()
		result, err = run(function, actx, logger, details)
	}()
	<-done
	return result, err
}

func run(function *binding.Function, actx Context, logger *slog.Logger, details *startupDetails) (any, error) {
	ti := actx.TaskInstance()
	pull := func(taskID string) (any, error) {
		found, err := actx.Client().GetXCom(actx, ti.DagID, ti.RunID, taskID, nil, sdk.XComReturnValueKey, nil)
		if errors.Is(err, sdk.XComNotFound) {
			return nil, nil
		}
		return found, err
	}
	caller := binding.Caller{Pull: pull, Warn: logger.Warn, OlderSchema: details.Context.MultiTeam == nil}
	return function.Call(actx, caller, details.Context.Arguments)
}

func terminal(kind, state string) map[string]any {
	return map[string]any{"type": kind, "state": state, "end_date": now()}
}

func now() string { return time.Now().UTC().Format(time.RFC3339Nano) }

// say returns an error as valid text. An Error method that panics, as of a nil pointer, must not hide what is within it.
func say(err error) (text string) {
	defer func() {
		if problem := recover(); problem != nil {
			text = fmt.Sprintf("%T, whose Error method panicked: %v", err, problem)
			if inner := within(err); inner != nil {
				text += "; it wraps: " + say(inner)
			}
			text = strings.ToValidUTF8(text, "\uFFFD")
		}
	}()
	return strings.ToValidUTF8(err.Error(), "\uFFFD")
}

func within(err error) (inner error) {
	defer func() {
		if recover() != nil {
			inner = nil
		}
	}()
	return errors.Unwrap(err)
}

func cut(text string, limit int) string {
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit])
}
