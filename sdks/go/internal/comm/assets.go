package comm

import (
	"context"
	"fmt"
	"time"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

// AssetEvents returns the events of an asset or an alias.
func (c *Client) AssetEvents(ctx context.Context, query sdk.AssetEventQuery) ([]sdk.AssetEvent, error) {
	body := map[string]any{
		"after": moment(query.After), "before": moment(query.Before), "limit": nil, "ascending": !query.Descending,
	}
	if query.Limit > 0 {
		body["limit"] = query.Limit
	}
	// what an older supervisor does not know is sent only if it is asked for
	if len(query.Extra) > 0 {
		body["extra"] = query.Extra
	}
	if query.PartitionKey != "" {
		body["partition_key"] = query.PartitionKey
	}
	if query.PartitionKeyPattern != "" {
		body["partition_key_regexp_pattern"] = query.PartitionKeyPattern
	}
	if query.Alias != "" {
		body["type"], body["alias_name"] = "GetAssetEventByAssetAlias", query.Alias
	} else {
		body["type"], body["name"], body["uri"] = "GetAssetEventByAsset", optional(query.Name), optional(query.URI)
	}
	found, err := c.ask(ctx, body, "asset events")
	if err != nil {
		return nil, err
	}
	listed, err := value(found, "asset_events", "asset events")
	if err != nil {
		return nil, err
	}
	var events []sdk.AssetEvent
	if err := wire.Into(listed, &events); err != nil {
		return nil, fmt.Errorf("asset events: %w", err)
	}
	return events, nil
}

// EmitAssetEvent leaves an event that goes out with the task's success.
func (c *Client) EmitAssetEvent(event sdk.Emission) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.emissions = append(c.emissions, event)
}

// Outlets returns what SucceedTask says of the assets: the outlets, and the events of each.
func (c *Client) Outlets() (outlets, events []any) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	outlets, events = []any{}, []any{}
	for _, one := range c.emissions {
		asset := map[string]any{"name": one.Asset.Name, "uri": one.Asset.URI}
		extra := one.Extra
		if extra == nil {
			extra = map[string]any{}
		}
		if one.Alias != "" {
			outlets = append(outlets, map[string]any{"name": one.Alias, "uri": nil, "type": "AssetAlias"})
			events = append(events, map[string]any{
				"source_alias_name": one.Alias, "dest_asset_key": asset, "dest_asset_extra": map[string]any{}, "extra": extra,
			})
			continue
		}
		outlets = append(outlets, map[string]any{"name": one.Asset.Name, "uri": one.Asset.URI, "type": "Asset"})
		event := map[string]any{"dest_asset_key": asset, "extra": extra}
		if one.PartitionKey != "" {
			event["partition_key"] = one.PartitionKey
		}
		events = append(events, event)
	}
	return outlets, events
}

func moment(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.UTC().Format(time.RFC3339Nano)
}

func optional(text string) any {
	if text == "" {
		return nil
	}
	return text
}
