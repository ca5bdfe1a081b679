package sdk

import (
	"errors"
	"fmt"
	"time"
)

var (
	// VariableNotFound is wrapped by the error of a variable that does not exist.
	VariableNotFound = errors.New("variable not found")
	// ConnectionNotFound is wrapped by the error of a connection that does not exist.
	ConnectionNotFound = errors.New("connection not found")
	// XComNotFound is wrapped by the error of an XCom that nobody left.
	XComNotFound = errors.New("XCom not found")
	// DagRunAlreadyExists is wrapped by the error of a run that is to be started and exists.
	DagRunAlreadyExists = errors.New("Dag run already exists")
	// PermissionDenied is wrapped by the error of something that the task may not read.
	PermissionDenied = errors.New("permission denied")
)

// APIError is an error that the supervisor answered with.
type APIError struct {
	// Type is one of Airflow's error types, such as API_SERVER_ERROR.
	Type string
	// Detail is what the supervisor added.
	Detail map[string]any
}

func (e *APIError) Error() string {
	if message, ok := e.Detail["message"].(string); ok && message != "" {
		return fmt.Sprintf("%s: %s", e.Type, message)
	}
	return e.Type
}

// SkipError ends a task as skipped.
type SkipError struct{ Reason string }

func (e *SkipError) Error() string { return "skipped: " + e.Reason }

// Skip returns the error with which a task ends as skipped.
func Skip(reason string) error { return &SkipError{reason} }

// FailError ends a task as failed, even if it has tries left.
type FailError struct{ Err error }

func (e *FailError) Error() string { return e.Err.Error() }
func (e *FailError) Unwrap() error { return e.Err }

// Fail returns the error with which a task fails for good.
func Fail(err error) error { return &FailError{err} }

// RetryError asks for another try after a time of the task's own choice.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string { return e.Err.Error() }
func (e *RetryError) Unwrap() error { return e.Err }

// RetryAfter returns the error with which a task fails and, if it has tries left, is tried again after a time.
func RetryAfter(after time.Duration, err error) error { return &RetryError{after, err} }
