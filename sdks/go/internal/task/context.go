package task

import (
	"context"

	"polypod.dev/sdk/go/sdk"
)

// Context is the sdk.TIRunContext of a running task.
type Context struct {
	context.Context
	TI  sdk.TaskInstance
	Run sdk.DagRun
}

// TaskInstance says which task instance runs.
func (c *Context) TaskInstance() sdk.TaskInstance { return c.TI }

// DagRun says which run it belongs to.
func (c *Context) DagRun() sdk.DagRun { return c.Run }
