package sdk

import (
	"context"
	"time"
)

// Asset names an asset.
type Asset struct {
	Name string `json:"name"`
	URI  string `json:"uri"`
}

// AssetEvent is one event of an asset.
type AssetEvent struct {
	ID             int64          `json:"id"`
	Timestamp      time.Time      `json:"timestamp"`
	Extra          map[string]any `json:"extra"`
	Asset          Asset          `json:"asset"`
	SourceDagID    string         `json:"source_dag_id"`
	SourceRunID    string         `json:"source_run_id"`
	SourceTaskID   string         `json:"source_task_id"`
	SourceMapIndex *int           `json:"source_map_index"`
	PartitionKey   *string        `json:"partition_key"`
}

// AssetEventQuery says which events are wanted: those of an asset, by its name or URI or both, or of an alias.
type AssetEventQuery struct {
	Name, URI, Alias string
	After, Before    time.Time
	// Limit is the largest number of events; 0 is all.
	Limit      int
	Descending bool
	// Extra, PartitionKey and PartitionKeyPattern need Airflow 3.4.
	Extra               map[string]string
	PartitionKey        string
	PartitionKeyPattern string
}

// Emission is an asset event that the task emits if it succeeds. The asset must be an outlet of the task, or Alias.
type Emission struct {
	Asset        Asset
	Alias        string
	Extra        map[string]any
	PartitionKey string
}

// AssetClient reads and emits asset events. It needs Airflow.
type AssetClient interface {
	AssetEvents(ctx context.Context, query AssetEventQuery) ([]AssetEvent, error)
	// EmitAssetEvent leaves an event for Airflow, which takes it when the task has succeeded.
	EmitAssetEvent(event Emission)
}
