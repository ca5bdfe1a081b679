// Package sdk has the client of a task function, for Airflow's data, and the errors with which a task ends.
//
// The names and shapes are those of Airflow's own Go SDK, so that moving a task between the two is an import.
package sdk

import (
	"context"
	"time"
)

// XComReturnValueKey is the key of a task's returned value.
const XComReturnValueKey = "return_value"

// TaskInstance says which task instance runs.
type TaskInstance struct {
	ID        string
	DagID     string
	RunID     string
	TaskID    string
	TryNumber int
	// MapIndex is nil for a task that is not mapped.
	MapIndex *int
}

// DagRun says which run the task belongs to. A time that the run does not have is nil.
type DagRun struct {
	DagID             string
	RunID             string
	RunType           string
	LogicalDate       *time.Time
	DataIntervalStart *time.Time
	DataIntervalEnd   *time.Time
	RunAfter          *time.Time
	// Conf holds the run's params.
	Conf map[string]any
}

// VariableClient reads, writes and deletes variables.
type VariableClient interface {
	// GetVariable returns a variable's value. If there is none, the error wraps VariableNotFound.
	GetVariable(ctx context.Context, key string) (string, error)
	// UnmarshalJSONVariable decodes a variable that holds JSON into pointer.
	UnmarshalJSONVariable(ctx context.Context, key string, pointer any) error
	// SetVariable creates or replaces a variable; an empty description clears it.
	SetVariable(ctx context.Context, key, value, description string) error
	// DeleteVariable removes a variable.
	DeleteVariable(ctx context.Context, key string) error
}

// MaskClient hides what must not be read in a log.
type MaskClient interface {
	// MaskSecret has a value hidden in the task's log from now on, in every usual encoding. Values of connections
	// are hidden without being asked for, and so are those of variables that are named like secrets.
	MaskSecret(ctx context.Context, value string) error
}

// ConnectionClient reads connections.
type ConnectionClient interface {
	// GetConnection returns a connection. If there is none, the error wraps ConnectionNotFound.
	GetConnection(ctx context.Context, connID string) (Connection, error)
}

// XComClient reads and writes XComs. A task that only returns a value does not need it.
type XComClient interface {
	// GetXCom returns a value that another task left; mapIndex is nil unless that task is mapped. If value is a
	// non-nil pointer, the XCom is decoded into it as well. If there is none, the error wraps XComNotFound.
	GetXCom(ctx context.Context, dagID, runID, taskID string, mapIndex *int, key string, value any) (any, error)
	// PushXCom leaves a value.
	PushXCom(ctx context.Context, ti TaskInstance, key string, value any) error
}

// Client is everything. Ask for a narrower interface where that is enough: it is easier to test.
type Client interface {
	VariableClient
	ConnectionClient
	MaskClient
	XComClient
	StateClient
	AssetClient
	DagRunClient
	PersonClient
}
