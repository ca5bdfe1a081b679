package dev.polypod.sdk;

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
}
