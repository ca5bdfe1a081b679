package dev.polypod.sdk;

import java.util.List;
import java.util.Map;

/** Airflow's data, through the supervisor. May be used from several threads at once. */
public interface Client {
  /** The key of a task's own result. */
  String RETURN_VALUE = "return_value";

  /** Returns a connection, null if there is none of this id. */
  Connection getConnection(String connId);

  /** Returns a variable's value, null if there is none of this key. */
  String getVariable(String key);

  /** Creates or replaces a variable. */
  void setVariable(String key, String value);

  /** Creates or replaces a variable, with a description. */
  void setVariable(String key, String value, String description);

  /** Removes a variable. */
  void deleteVariable(String key);

  /**
   * Has a value hidden in the task's log from now on, in every usual encoding. Values of connections are hidden without
   * being asked for, and so are those of variables that are named like secrets.
   */
  void maskSecret(String value);

  /** Returns the result of another task of this run, null if it left none. Integers are Long or BigInteger. */
  default Object getXCom(String taskId) {
    return getXCom(taskId, RETURN_VALUE);
  }

  /** Returns a value that another task of this run left, null if there is none. */
  Object getXCom(String taskId, String key);

  /** Leaves this task's result. */
  default void setXCom(Object value) {
    setXCom(RETURN_VALUE, value);
  }

  /** Leaves a value: null, a boolean, number, string, list, map, or an object with public fields or getters. */
  void setXCom(String key, Object value);

  /** Returns the running task's own store. */
  TaskStateStore getTaskStateStore();

  /** Returns an asset's store; its URI is used if it has no name. It needs Airflow. */
  AssetStateStore getAssetStateStore(Asset asset);

  /** Returns asset events. It needs Airflow. */
  List<AssetEvent> getAssetEvents(AssetEventQuery query);

  /** Leaves an event of one of the task's outlets, which Airflow takes when the task has succeeded. */
  void emitAssetEvent(Asset asset, Map<String, Object> extra);

  /** Leaves an event of an asset through an alias that is one of the task's outlets. */
  void emitAssetEvent(String alias, Asset asset, Map<String, Object> extra);

  /**
   * Starts a run of a Dag. It needs Airflow.
   *
   * @return false if there is a run of that id already
   */
  boolean triggerDagRun(String dagId, String runId, Map<String, Object> conf);

  /** Returns the state of a run. */
  String getDagRunState(String dagId, String runId);

  /**
   * Returns the state that a run has ended in. It needs Airflow.
   *
   * @throws SuspendException it still runs: the task ends as deferred
   */
  String waitForDagRun(String dagId, String runId);

  /** Sets the note of the task's own run; an empty one removes it. It needs Airflow 3.4. */
  void updateDagRunNote(String note);

  /**
   * Returns what a person has answered. It needs Airflow.
   *
   * @throws SuspendException there is no answer yet: the task ends as awaiting_input
   */
  Reply ask(Question question);
}
