package comm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

const retentionDays = "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS"

// store is a state store: the messages of a task's own, and of an asset's by name or URI, differ in names alone.
type store struct {
	client *Client
	kind   string
	suffix string
	owner  map[string]any
}

// TaskStateStore returns the running task's own store.
func (c *Client) TaskStateStore() sdk.TaskStateStore {
	return &store{c, "TaskStateStore", "", map[string]any{"ti_id": c.TI.ID}}
}

// AssetStateStore returns an asset's store.
func (c *Client) AssetStateStore(asset sdk.Asset) sdk.StateStore {
	if asset.Name != "" {
		return &store{c, "AssetStateStore", "ByName", map[string]any{"name": asset.Name}}
	}
	return &store{c, "AssetStateStore", "ByUri", map[string]any{"uri": asset.URI}}
}

func (s *store) ask(ctx context.Context, verb string, fields map[string]any) (map[string]any, error) {
	body := map[string]any{"type": verb + s.kind + s.suffix}
	for _, part := range []map[string]any{s.owner, fields} {
		for name, value := range part {
			body[name] = value
		}
	}
	return s.client.ask(ctx, body, fmt.Sprintf("state %q", fields["key"]))
}

func (s *store) Get(ctx context.Context, key string, pointer any) (bool, error) {
	found, err := s.ask(ctx, "Get", map[string]any{"key": key})
	var missing *sdk.APIError
	if errors.As(err, &missing) && (missing.Type == "TASK_STORE_NOT_FOUND" || missing.Type == "ASSET_STORE_NOT_FOUND") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	kept, err := value(found, "value", fmt.Sprintf("state %q", key))
	if err != nil {
		return false, err
	}
	if err := wire.Into(kept, pointer); err != nil {
		return false, fmt.Errorf("state %q: %w", key, err)
	}
	return true, nil
}

func (s *store) Set(ctx context.Context, key string, value any) error {
	days, err := strconv.ParseFloat(strings.TrimSpace(os.Getenv(retentionDays)), 64)
	if err != nil || days < 0 {
		days = 0
	}
	return s.SetFor(ctx, key, value, time.Duration(days*24*float64(time.Hour)))
}

func (s *store) SetFor(ctx context.Context, key string, value any, retention time.Duration) error {
	plain, err := wire.Plain(value)
	if err != nil {
		return fmt.Errorf("state %q: %w", key, err)
	}
	fields := map[string]any{"key": key, "value": plain}
	if s.kind == "TaskStateStore" {
		fields["expires_at"] = nil
		if retention > 0 {
			fields["expires_at"] = time.Now().Add(retention).UTC().Format(time.RFC3339Nano)
		}
	}
	_, err = s.ask(ctx, "Set", fields)
	return err
}

func (s *store) Delete(ctx context.Context, key string) error {
	_, err := s.ask(ctx, "Delete", map[string]any{"key": key})
	return err
}

func (s *store) Clear(ctx context.Context) error {
	_, err := s.ask(ctx, "Clear", nil)
	return err
}
