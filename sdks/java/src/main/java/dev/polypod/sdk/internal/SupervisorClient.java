package dev.polypod.sdk.internal;

import dev.polypod.sdk.ApiException;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Connection;
import dev.polypod.sdk.TaskInstance;
import java.util.HashMap;
import java.util.Map;

/** The client that asks the supervisor. */
final class SupervisorClient implements Client {
  private final Comm comm;
  private final TaskInstance ti;

  SupervisorClient(Comm comm, TaskInstance ti) {
    this.comm = comm;
    this.ti = ti;
  }

  private static Map<String, Object> message(String type, Object... fields) {
    Map<String, Object> body = new HashMap<>();
    body.put("type", type);
    for (int i = 0; i < fields.length; i += 2) {
      body.put((String) fields[i], fields[i + 1]);
    }
    return body;
  }

  /** Sends a request; an error that means "there is none" is null. */
  private Map<String, Object> find(String missing, Map<String, Object> body) {
    try {
      return comm.request(body);
    } catch (ApiException error) {
      if (error.type().equals(missing)) {
        return null;
      }
      throw error;
    }
  }

  @Override
  public Connection getConnection(String connId) {
    Map<String, Object> found = find("CONNECTION_NOT_FOUND", message("GetConnection", "conn_id", connId));
    if (found == null) {
      return null;
    }
    Object port = found.get("port");
    return new Connection(
        (String) found.get("conn_id"),
        (String) found.get("conn_type"),
        (String) found.get("host"),
        (String) found.get("schema"),
        (String) found.get("login"),
        (String) found.get("password"),
        port instanceof Number ? ((Number) port).intValue() : null,
        (String) found.get("extra"));
  }

  @Override
  public String getVariable(String key) {
    Map<String, Object> found = find("VARIABLE_NOT_FOUND", message("GetVariable", "key", key));
    return found == null ? null : (String) found.get("value");
  }

  @Override
  public void setVariable(String key, String value) {
    setVariable(key, value, null);
  }

  @Override
  public void setVariable(String key, String value, String description) {
    comm.request(message("PutVariable", "key", key, "value", value, "description", description));
  }

  @Override
  public void deleteVariable(String key) {
    comm.request(message("DeleteVariable", "key", key));
  }

  @Override
  public Object getXCom(String taskId, String key) {
    Map<String, Object> found =
        find(
            "XCOM_NOT_FOUND",
            message(
                "GetXCom", "key", key, "dag_id", ti.dagId, "run_id", ti.runId, "task_id", taskId,
                "map_index", null, "include_prior_dates", false));
    return found == null ? null : found.get("value");
  }

  @Override
  public void setXCom(String key, Object value) {
    comm.request(
        message(
            "SetXCom", "key", key, "value", Json.plain(value), "dag_id", ti.dagId, "run_id", ti.runId,
            "task_id", ti.taskId, "map_index", ti.mapIndex < 0 ? null : ti.mapIndex,
            "dag_result", false, "mapped_length", null));
  }
}
