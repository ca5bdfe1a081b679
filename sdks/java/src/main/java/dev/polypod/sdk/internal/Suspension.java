package dev.polypod.sdk.internal;

import dev.polypod.sdk.RescheduleException;
import dev.polypod.sdk.SuspendException;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** An attempt that ends until a trigger has fired, or a person has answered. */
final class Suspension extends SuspendException {
  private final transient Map<String, Object> message;

  private Suspension(String why, Map<String, Object> message) {
    super(why);
    this.message = message;
  }

  static Suspension untilDagRun(String dagId, String runId, List<String> states) {
    Map<String, Object> kwargs = new HashMap<>();
    kwargs.put("dag_id", dagId);
    kwargs.put("states", states);
    kwargs.put("run_ids", Arrays.asList(runId));
    kwargs.put("execution_dates", null);
    kwargs.put("poll_interval", 5.0);
    return new Suspension(
        "waiting for run " + runId + " of Dag " + dagId,
        SupervisorClient.message(
            "DeferTask", "state", "deferred", "trigger_kwargs", kwargs, "next_method", "execute_complete",
            "classpath", "airflow.providers.standard.triggers.external_task.DagStateTrigger"));
  }

  static Suspension untilAnswer(Duration timeout) {
    return new Suspension(
        "waiting for a person's answer",
        SupervisorClient.message(
            "AwaitInputTask", "state", "awaiting_input", "next_method", "execute_complete",
            "timeout", timeout == null ? null : timeout.toString()));
  }

  /** Returns the terminal message of an exception that suspends the task. */
  static Map<String, Object> messageOf(SuspendException error) {
    if (error instanceof Suspension) {
      return ((Suspension) error).message;
    }
    Instant at = ((RescheduleException) error).at();
    return SupervisorClient.message(
        "RescheduleTask", "state", "up_for_reschedule", "reschedule_date", at, "end_date", Instant.now());
  }
}
