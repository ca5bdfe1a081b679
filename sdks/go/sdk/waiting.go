package sdk

import (
	"context"
	"time"
)

// DagRunRequest asks for a run of a Dag.
type DagRunRequest struct {
	DagID, RunID string
	Conf         map[string]any
	LogicalDate  *time.Time
	Note         string
}

// DagRunClient starts runs of other Dags, and waits for them without holding a worker. It needs Airflow.
type DagRunClient interface {
	// TriggerDagRun starts a run. If there is one of that id, the error wraps DagRunAlreadyExists.
	TriggerDagRun(ctx context.Context, request DagRunRequest) error
	// DagRunState returns the state of a run.
	DagRunState(ctx context.Context, dagID, runID string) (string, error)
	// WaitForDagRun returns the state that a run has ended in. While it runs, the error is a DeferError: return it, and
	// the task ends as deferred; when the run has ended, the task is started again from its beginning.
	WaitForDagRun(ctx context.Context, dagID, runID string) (string, error)
	// UpdateDagRunNote sets the note of the task's own run; an empty one removes it. It needs Airflow 3.4.
	UpdateDagRunNote(ctx context.Context, note string) error
}

// Question is what a person is asked.
type Question struct {
	Subject string
	Body    string
	Options []string
	// Defaults are taken when nobody has answered within Timeout.
	Defaults []string
	Multiple bool
	Params   map[string]any
	Timeout  time.Duration
}

// Reply is what a person has answered.
type Reply struct {
	Chosen []string
	Params map[string]any
}

// PersonClient asks people. It needs Airflow.
type PersonClient interface {
	// Ask returns what a person has answered. Before, the error is an AwaitInputError: return it, and the task ends as
	// awaiting_input; when the answer is there, the task is started again from its beginning.
	Ask(ctx context.Context, question Question) (Reply, error)
}

// RescheduleError ends an attempt; the same try of the task is started again at a time.
type RescheduleError struct{ At time.Time }

func (e *RescheduleError) Error() string {
	return "to be started again at " + e.At.Format(time.RFC3339)
}

// RescheduleAt returns the error with which a task frees its worker until a time: what a sensor does.
func RescheduleAt(at time.Time) error { return &RescheduleError{at} }

// DeferError ends an attempt until a trigger of Airflow's has fired.
type DeferError struct {
	Classpath string
	Kwargs    map[string]any
	Reason    string
}

func (e *DeferError) Error() string { return "deferred: " + e.Reason }

// AwaitInputError ends an attempt until a person has answered.
type AwaitInputError struct{ Timeout time.Duration }

func (e *AwaitInputError) Error() string { return "waiting for a person's answer" }
