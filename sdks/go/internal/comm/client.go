package comm

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

// Client is the sdk.Client that asks the supervisor, for one task instance.
type Client struct {
	Channel *Channel
	TI      sdk.TaskInstance
	// Resumed says that the task was started again after it had waited for something.
	Resumed bool

	mutex     sync.Mutex
	emissions []sdk.Emission
}

var _ sdk.Client = (*Client)(nil)

// Failure returns the error that a frame carries, as its third element or as its body; nil if it carries none.
func Failure(frame wire.Frame) *sdk.APIError {
	failure := frame.Error
	if failure == nil && frame.Body["type"] == "ErrorResponse" {
		failure = frame.Body
	}
	if failure == nil {
		return nil
	}
	kind, _ := failure["error"].(string)
	detail, _ := failure["detail"].(map[string]any)
	return &sdk.APIError{Type: kind, Detail: detail}
}

func (c *Client) ask(ctx context.Context, body map[string]any, what string) (map[string]any, error) {
	frame, err := c.Channel.Request(ctx, body)
	if err != nil {
		return nil, err
	}
	apiError := Failure(frame)
	if apiError == nil {
		return frame.Body, nil
	}
	switch apiError.Type {
	case "VARIABLE_NOT_FOUND":
		return nil, fmt.Errorf("%s: %w", what, sdk.VariableNotFound)
	case "CONNECTION_NOT_FOUND":
		return nil, fmt.Errorf("%s: %w", what, sdk.ConnectionNotFound)
	case "XCOM_NOT_FOUND":
		return nil, fmt.Errorf("%s: %w", what, sdk.XComNotFound)
	case "DAGRUN_ALREADY_EXISTS":
		return nil, fmt.Errorf("%s: %w", what, sdk.DagRunAlreadyExists)
	case "PERMISSION_DENIED":
		return nil, fmt.Errorf("%s: %w", what, sdk.PermissionDenied)
	}
	return nil, fmt.Errorf("%s: %w", what, apiError)
}

// value returns a field of an answer, nil if it is null. An answer without the field is another one than was asked for.
func value(body map[string]any, name, what string) (any, error) {
	found, given := body[name]
	if !given {
		return nil, fmt.Errorf("%s: the supervisor's answer (%v) has no %s", what, body["type"], name)
	}
	return found, nil
}

// text is value for a field that holds a text; ok is false if it is null.
func text(body map[string]any, name, what string) (found string, ok bool, err error) {
	given, err := value(body, name, what)
	if err != nil || given == nil {
		return "", false, err
	}
	if found, ok = given.(string); !ok {
		return "", false, fmt.Errorf("%s: in the supervisor's answer (%v), %s is not a text but %T", what, body["type"], name, given)
	}
	return found, true, nil
}

func (c *Client) GetVariable(ctx context.Context, key string) (string, error) {
	what := fmt.Sprintf("variable %q", key)
	body, err := c.ask(ctx, map[string]any{"type": "GetVariable", "key": key}, what)
	if err != nil {
		return "", err
	}
	found, ok, err := text(body, "value", what)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", what, sdk.VariableNotFound)
	}
	return found, err
}

func (c *Client) UnmarshalJSONVariable(ctx context.Context, key string, pointer any) error {
	value, err := c.GetVariable(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(value), pointer); err != nil {
		return fmt.Errorf("variable %q: %w", key, err)
	}
	return nil
}

func (c *Client) SetVariable(ctx context.Context, key, value, description string) error {
	body := map[string]any{"type": "PutVariable", "key": key, "value": value, "description": nil}
	if description != "" {
		body["description"] = description
	}
	_, err := c.ask(ctx, body, fmt.Sprintf("variable %q", key))
	return err
}

func (c *Client) DeleteVariable(ctx context.Context, key string) error {
	_, err := c.ask(ctx, map[string]any{"type": "DeleteVariable", "key": key}, fmt.Sprintf("variable %q", key))
	return err
}

func (c *Client) MaskSecret(ctx context.Context, value string) error {
	_, err := c.ask(ctx, map[string]any{"type": "MaskSecret", "value": value}, "a value to be masked")
	return err
}

func (c *Client) GetConnection(ctx context.Context, connID string) (sdk.Connection, error) {
	what := fmt.Sprintf("connection %q", connID)
	body, err := c.ask(ctx, map[string]any{"type": "GetConnection", "conn_id": connID}, what)
	if err != nil {
		return sdk.Connection{}, err
	}
	var connection sdk.Connection
	for name, place := range map[string]*string{
		"conn_id": &connection.ID, "conn_type": &connection.Type, "host": &connection.Host, "schema": &connection.Schema,
		"login": &connection.Login, "password": &connection.Password, "extra": &connection.Extra,
	} {
		if _, given := body[name]; !given && name != "conn_id" {
			continue
		}
		if *place, _, err = text(body, name, what); err != nil {
			return sdk.Connection{}, err
		}
	}
	if body["port"] != nil {
		if err := wire.Into(body["port"], &connection.Port); err != nil {
			return sdk.Connection{}, fmt.Errorf("%s: port: %w", what, err)
		}
	}
	return connection, nil
}

func (c *Client) GetXCom(
	ctx context.Context, dagID, runID, taskID string, mapIndex *int, key string, into any,
) (any, error) {
	what := fmt.Sprintf("XCom %q of task %q", key, taskID)
	body := map[string]any{
		"type": "GetXCom", "key": key, "dag_id": dagID, "run_id": runID, "task_id": taskID,
		"map_index": nil, "include_prior_dates": false,
	}
	if mapIndex != nil {
		body["map_index"] = *mapIndex
	}
	answer, err := c.ask(ctx, body, what)
	if err != nil {
		return nil, err
	}
	found, err := value(answer, "value", what)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", what, sdk.XComNotFound)
	}
	if into != nil {
		if err := wire.Into(found, into); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	return found, nil
}

func (c *Client) PushXCom(ctx context.Context, ti sdk.TaskInstance, key string, value any) error {
	what := fmt.Sprintf("XCom %q", key)
	plain, err := wire.Plain(value)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	body := map[string]any{
		"type": "SetXCom", "key": key, "value": plain, "dag_id": ti.DagID, "run_id": ti.RunID, "task_id": ti.TaskID,
		"map_index": nil, "dag_result": false, "mapped_length": nil,
	}
	if ti.MapIndex != nil {
		body["map_index"] = *ti.MapIndex
	}
	_, err = c.ask(ctx, body, what)
	return err
}
