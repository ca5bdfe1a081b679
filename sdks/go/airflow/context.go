package airflow

import (
	"context"
	"log/slog"

	"polypod.dev/sdk/go/sdk"
)

type (
	// TaskInstance says which task instance runs.
	TaskInstance = sdk.TaskInstance
	// DagRun says which run it belongs to.
	DagRun = sdk.DagRun
)

// Context is the first parameter of every task handler: a context.Context that is cancelled when the supervisor wants
// the task to end, with what Airflow gives the task.
type Context struct {
	context.Context
	values values
}

type values struct {
	logger *slog.Logger
	client sdk.Client
	ti     TaskInstance
	run    DagRun
}

type key struct{}

// NewContext returns a Context, for the test of a handler. It panics if ctx, logger or client is nil.
func NewContext(ctx context.Context, logger *slog.Logger, client sdk.Client, ti TaskInstance, run DagRun) Context {
	if ctx == nil || logger == nil || client == nil {
		panic("airflow.NewContext: ctx, logger and client must not be nil")
	}
	all := values{logger, client, ti, run}
	return Context{context.WithValue(ctx, key{}, all), all}
}

// FromContext returns the Context that ctx is derived from, with the deadline and the cancellation of ctx itself.
func FromContext(ctx context.Context) (Context, bool) {
	if ctx == nil {
		return Context{}, false
	}
	all, ok := ctx.Value(key{}).(values)
	return Context{ctx, all}, ok
}

// Logger writes to the task's log.
func (c Context) Logger() *slog.Logger { return c.values.logger }

// Client reads and writes Airflow's data.
func (c Context) Client() sdk.Client { return c.values.client }

// TaskInstance says which task instance runs.
func (c Context) TaskInstance() TaskInstance { return c.values.ti }

// DagRun says which run it belongs to.
func (c Context) DagRun() DagRun { return c.values.run }
