package sdk

import (
	"context"
	"time"
)

// StateStore keeps values under keys.
type StateStore interface {
	// Get decodes the value under key into pointer; it returns false if there is none.
	Get(ctx context.Context, key string, pointer any) (bool, error)
	// Set keeps a value, in place of the one that was there.
	Set(ctx context.Context, key string, value any) error
	// Delete removes a value; none is no error.
	Delete(ctx context.Context, key string) error
	// Clear removes all of them.
	Clear(ctx context.Context) error
}

// TaskStateStore keeps what a task remembers from one try to the next. What is Set is kept for as many days as Airflow
// is configured to.
type TaskStateStore interface {
	StateStore
	// SetFor keeps a value for a time; 0 keeps it for good.
	SetFor(ctx context.Context, key string, value any, retention time.Duration) error
}

// StateClient gives access to the state stores.
type StateClient interface {
	// TaskStateStore returns the running task's own store.
	TaskStateStore() TaskStateStore
	// AssetStateStore returns an asset's store; its URI is used if it has no name. It needs Airflow.
	AssetStateStore(asset Asset) StateStore
}
