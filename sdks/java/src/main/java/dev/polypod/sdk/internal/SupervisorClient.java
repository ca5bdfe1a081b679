package dev.polypod.sdk.internal;

import dev.polypod.sdk.ApiException;
import dev.polypod.sdk.Asset;
import dev.polypod.sdk.AssetEvent;
import dev.polypod.sdk.AssetEventQuery;
import dev.polypod.sdk.AssetStateStore;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Connection;
import dev.polypod.sdk.Question;
import dev.polypod.sdk.Reply;
import dev.polypod.sdk.TaskInstance;
import dev.polypod.sdk.TaskStateStore;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The client that asks the supervisor. */
final class SupervisorClient implements Client {
  private final Comm comm;
  private final TaskInstance ti;
  private final boolean resumed;
  private final List<Map<String, Object>> outlets = new ArrayList<>();
  private final List<Map<String, Object>> outletEvents = new ArrayList<>();

  /** Makes the client of a task instance; resumed says that it was started again after it had waited for something. */
  SupervisorClient(Comm comm, TaskInstance ti, boolean resumed) {
    this.comm = comm;
    this.ti = ti;
    this.resumed = resumed;
  }

  static Map<String, Object> message(String type, Object... fields) {
    Map<String, Object> body = new HashMap<>();
    body.put("type", type);
    for (int i = 0; i < fields.length; i += 2) {
      body.put((String) fields[i], fields[i + 1]);
    }
    return body;
  }

  /** Sends a request; an error that means "there is none" is null. */
  Map<String, Object> find(String missing, Map<String, Object> body) {
    try {
      return ask(body);
    } catch (ApiException error) {
      if (error.type().equals(missing)) {
        return null;
      }
      throw error;
    }
  }

  /**
   * Returns a field of an answer, null if it is null.
   *
   * @throws ApiException it is missing or of another type: this is another answer than was asked for
   */
  static <T> T field(Map<String, Object> answer, String name, Class<T> type) {
    if (!answer.containsKey(name)) {
      throw new ApiException("INVALID_ANSWER", "the supervisor's answer (" + answer.get("type") + ") has no " + name);
    }
    return optional(answer, name, type);
  }

  private static <T> T optional(Map<String, Object> answer, String name, Class<T> type) {
    Object found = answer.get(name);
    if (found != null && !type.isInstance(found)) {
      String kind = type == String.class ? "a text" : type == List.class ? "a list" : type.getSimpleName();
      throw new ApiException(
          "INVALID_ANSWER",
          "in the supervisor's answer (" + answer.get("type") + "), " + name + " is not " + kind + " but "
              + found.getClass().getSimpleName());
    }
    return type.cast(found);
  }

  private static Integer port(Map<String, Object> answer) {
    Long found = optional(answer, "port", Long.class);
    if (found != null && found != found.intValue()) {
      throw new ApiException("INVALID_ANSWER", "port: " + found + " does not fit int");
    }
    return found == null ? null : found.intValue();
  }

  @Override
  public Connection getConnection(String connId) {
    Map<String, Object> found = find("CONNECTION_NOT_FOUND", message("GetConnection", "conn_id", connId));
    if (found == null) {
      return null;
    }
    return new Connection(
        field(found, "conn_id", String.class),
        optional(found, "conn_type", String.class),
        optional(found, "host", String.class),
        optional(found, "schema", String.class),
        optional(found, "login", String.class),
        optional(found, "password", String.class),
        port(found),
        optional(found, "extra", String.class));
  }

  @Override
  public String getVariable(String key) {
    Map<String, Object> found = find("VARIABLE_NOT_FOUND", message("GetVariable", "key", key));
    return found == null ? null : field(found, "value", String.class);
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
  public void maskSecret(String value) {
    comm.request(message("MaskSecret", "value", value));
  }

  @Override
  public Object getXCom(String taskId, String key) {
    Map<String, Object> found =
        find(
            "XCOM_NOT_FOUND",
            message(
                "GetXCom", "key", key, "dag_id", ti.dagId, "run_id", ti.runId, "task_id", taskId,
                "map_index", null, "include_prior_dates", false));
    return found == null ? null : field(found, "value", Object.class);
  }

  @Override
  public void setXCom(String key, Object value) {
    comm.request(
        message(
            "SetXCom", "key", key, "value", Json.plain(value), "dag_id", ti.dagId, "run_id", ti.runId,
            "task_id", ti.taskId, "map_index", ti.mapIndex < 0 ? null : ti.mapIndex,
            "dag_result", false, "mapped_length", null));
  }

  /** Sends a request; an answer without a body has no fields. */
  Map<String, Object> ask(Map<String, Object> body) {
    Map<String, Object> answer = comm.request(body);
    return answer == null ? Map.of() : answer;
  }

  @Override
  public TaskStateStore getTaskStateStore() {
    return new StateStores(this, "TaskStateStore", "ti_id", ti.id);
  }

  @Override
  public AssetStateStore getAssetStateStore(Asset asset) {
    return asset.name == null
        ? new StateStores(this, "AssetStateStoreByUri", "uri", asset.uri)
        : new StateStores(this, "AssetStateStoreByName", "name", asset.name);
  }

  @Override
  public List<AssetEvent> getAssetEvents(AssetEventQuery query) {
    List<AssetEvent> events = new ArrayList<>();
    for (Object item : field(ask(query.message()), "asset_events", List.class)) {
      Map<String, Object> event = Wire.map(item);
      Map<String, Object> asset = Wire.map(event.get("asset"));
      events.add(
          new AssetEvent(
              Runtime.instant(event.get("timestamp")),
              new Asset((String) asset.get("name"), (String) asset.get("uri")),
              Wire.map(event.get("extra")),
              (String) event.get("source_dag_id"),
              (String) event.get("source_run_id"),
              (String) event.get("source_task_id"),
              (String) event.get("partition_key")));
    }
    return events;
  }

  @Override
  public synchronized void emitAssetEvent(Asset asset, Map<String, Object> extra) {
    outlets.add(profile("Asset", asset.name, asset.uri));
    outletEvents.add(Map.of("dest_asset_key", key(asset), "extra", extra));
  }

  @Override
  public synchronized void emitAssetEvent(String alias, Asset asset, Map<String, Object> extra) {
    outlets.add(profile("AssetAlias", alias, null));
    outletEvents.add(
        Map.of(
            "source_alias_name", alias, "dest_asset_key", key(asset), "dest_asset_extra", Map.of(), "extra", extra));
  }

  private static Map<String, Object> key(Asset asset) {
    Map<String, Object> key = new HashMap<>();
    key.put("name", asset.name);
    key.put("uri", asset.uri);
    return key;
  }

  private static Map<String, Object> profile(String type, String name, String uri) {
    return message(type, "name", name, "uri", uri);
  }

  /** Adds what SucceedTask says of the assets. */
  synchronized void addOutlets(Map<String, Object> success) {
    success.put("task_outlets", outlets);
    success.put("outlet_events", outletEvents);
  }

  @Override
  public boolean triggerDagRun(String dagId, String runId, Map<String, Object> conf) {
    Map<String, Object> body =
        message("TriggerDagRun", "dag_id", dagId, "run_id", runId, "conf", Json.plain(conf), "logical_date", null);
    try {
      comm.request(body);
      return true;
    } catch (ApiException error) {
      if (error.type().equals("DAGRUN_ALREADY_EXISTS")) {
        return false;
      }
      throw error;
    }
  }

  @Override
  public String getDagRunState(String dagId, String runId) {
    return field(ask(message("GetDagRunState", "dag_id", dagId, "run_id", runId)), "state", String.class);
  }

  @Override
  public String waitForDagRun(String dagId, String runId) {
    List<String> ends = List.of("success", "failed");
    String state = getDagRunState(dagId, runId);
    if (!ends.contains(state)) {
      throw Suspension.untilDagRun(dagId, runId, ends);
    }
    return state;
  }

  @Override
  public void updateDagRunNote(String note) {
    comm.request(message("UpdateDagRunNote", "ti_id", ti.id, "note", note));
  }

  @Override
  public Reply ask(Question question) {
    if (resumed) {
      Map<String, Object> answer = ask(message("GetHITLDetailResponse", "ti_id", ti.id));
      if (Boolean.TRUE.equals(answer.get("response_received"))) {
        List<String> chosen = new ArrayList<>();
        ((List<?>) field(answer, "chosen_options", List.class)).forEach(option -> chosen.add(String.valueOf(option)));
        return new Reply(chosen, Wire.map(answer.get("params_input")));
      }
    }
    comm.request(
        message(
            "CreateHITLDetailPayload", "ti_id", ti.id, "options", question.options, "subject", question.subject,
            "body", question.body, "defaults", question.defaults, "multiple", question.multiple,
            "params", Json.plain(question.params), "assigned_users", null));
    throw Suspension.untilAnswer(question.timeout);
  }
}
