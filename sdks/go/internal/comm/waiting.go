package comm

import (
	"context"
	"fmt"
	"time"

	"polypod.dev/sdk/go/internal/wire"
	"polypod.dev/sdk/go/sdk"
)

const dagStateTrigger = "airflow.providers.standard.triggers.external_task.DagStateTrigger"

var dagRunEnds = []string{"success", "failed"}

// TriggerDagRun starts a run of a Dag.
func (c *Client) TriggerDagRun(ctx context.Context, request sdk.DagRunRequest) error {
	body := map[string]any{
		"type": "TriggerDagRun", "dag_id": request.DagID, "run_id": request.RunID, "conf": request.Conf,
		"logical_date": nil, "note": optional(request.Note),
	}
	if request.LogicalDate != nil {
		body["logical_date"] = moment(*request.LogicalDate)
	}
	_, err := c.ask(ctx, body, fmt.Sprintf("run %q of Dag %q", request.RunID, request.DagID))
	return err
}

// DagRunState returns the state of a run.
func (c *Client) DagRunState(ctx context.Context, dagID, runID string) (string, error) {
	body := map[string]any{"type": "GetDagRunState", "dag_id": dagID, "run_id": runID}
	what := fmt.Sprintf("run %q of Dag %q", runID, dagID)
	found, err := c.ask(ctx, body, what)
	if err != nil {
		return "", err
	}
	state, ok, err := text(found, "state", what)
	if err == nil && !ok {
		err = fmt.Errorf("%s: it has no state", what)
	}
	return state, err
}

// WaitForDagRun returns the state that a run has ended in, or the error that defers the task until then.
func (c *Client) WaitForDagRun(ctx context.Context, dagID, runID string) (string, error) {
	state, err := c.DagRunState(ctx, dagID, runID)
	if err != nil {
		return "", err
	}
	for _, end := range dagRunEnds {
		if state == end {
			return state, nil
		}
	}
	kwargs := map[string]any{
		"dag_id": dagID, "states": dagRunEnds, "run_ids": []string{runID}, "execution_dates": nil, "poll_interval": 5.0,
	}
	return "", &sdk.DeferError{
		Classpath: dagStateTrigger, Kwargs: kwargs, Reason: fmt.Sprintf("run %q of Dag %q is %s", runID, dagID, state),
	}
}

// UpdateDagRunNote sets the note of the task's own run.
func (c *Client) UpdateDagRunNote(ctx context.Context, note string) error {
	_, err := c.ask(ctx, map[string]any{"type": "UpdateDagRunNote", "ti_id": c.TI.ID, "note": note}, "the run's note")
	return err
}

// Ask returns what a person has answered, or the error with which the task waits for it.
func (c *Client) Ask(ctx context.Context, question sdk.Question) (sdk.Reply, error) {
	const what = "the question to a person"
	if c.Resumed {
		found, err := c.ask(ctx, map[string]any{"type": "GetHITLDetailResponse", "ti_id": c.TI.ID}, what)
		if err != nil {
			return sdk.Reply{}, err
		}
		var answer struct {
			Received bool           `json:"response_received"`
			Chosen   []string       `json:"chosen_options"`
			Params   map[string]any `json:"params_input"`
		}
		if err := wire.Into(found, &answer); err != nil {
			return sdk.Reply{}, fmt.Errorf("%s: %w", what, err)
		}
		if answer.Received {
			return sdk.Reply{Chosen: answer.Chosen, Params: answer.Params}, nil
		}
	}
	params, err := wire.Plain(question.Params)
	if err != nil {
		return sdk.Reply{}, fmt.Errorf("%s: %w", what, err)
	}
	body := map[string]any{
		"type": "CreateHITLDetailPayload", "ti_id": c.TI.ID, "options": question.Options, "subject": question.Subject,
		"body": optional(question.Body), "multiple": question.Multiple, "params": params, "defaults": nil,
		"assigned_users": nil,
	}
	if len(question.Defaults) > 0 {
		body["defaults"] = question.Defaults
	}
	if _, err := c.ask(ctx, body, what); err != nil {
		return sdk.Reply{}, err
	}
	return sdk.Reply{}, &sdk.AwaitInputError{Timeout: question.Timeout}
}

// duration returns an ISO 8601 duration, nil for none.
func duration(length time.Duration) any {
	if length <= 0 {
		return nil
	}
	return fmt.Sprintf("PT%gS", length.Seconds())
}

// Suspension returns the message with which a task ends until something has happened; ok is false for other errors.
func Suspension(err error) (message map[string]any, ok bool) {
	switch wait := err.(type) {
	case *sdk.RescheduleError:
		at := wait.At.UTC().Format(time.RFC3339Nano)
		return map[string]any{"type": "RescheduleTask", "state": "up_for_reschedule", "reschedule_date": at}, true
	case *sdk.DeferError:
		return map[string]any{
			"type": "DeferTask", "state": "deferred", "classpath": wait.Classpath, "trigger_kwargs": wait.Kwargs,
			"next_method": "execute_complete",
		}, true
	case *sdk.AwaitInputError:
		return map[string]any{
			"type": "AwaitInputTask", "state": "awaiting_input", "next_method": "execute_complete",
			"timeout": duration(wait.Timeout),
		}, true
	}
	return nil, false
}
