package dev.polypod.sdk.internal;

import dev.polypod.sdk.AssetStateStore;
import dev.polypod.sdk.TaskStateStore;
import java.time.Duration;
import java.time.Instant;

/** The state stores: the messages of a task's own, and of an asset's by name or URI, differ in names alone. */
final class StateStores implements TaskStateStore, AssetStateStore {
  private static final String RETENTION_DAYS = "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS";

  private final SupervisorClient client;
  private final String kind;
  private final String owner;
  private final String id;

  StateStores(SupervisorClient client, String kind, String owner, String id) {
    this.client = client;
    this.kind = kind;
    this.owner = owner;
    this.id = id;
  }

  @Override
  public Object get(String key) {
    var body = SupervisorClient.message("Get" + kind, owner, id, "key", key);
    var found = client.find(owner.equals("ti_id") ? "TASK_STORE_NOT_FOUND" : "ASSET_STORE_NOT_FOUND", body);
    return found == null ? null : SupervisorClient.field(found, "value", Object.class);
  }

  @Override
  public void set(String key, Object value) {
    set(key, value, defaultRetention());
  }

  private static Duration defaultRetention() {
    String days = System.getenv(RETENTION_DAYS);
    try {
      return days == null ? Duration.ZERO : Duration.ofSeconds((long) (Double.parseDouble(days.trim()) * 86_400));
    } catch (NumberFormatException error) {
      return Duration.ZERO;
    }
  }

  @Override
  public void set(String key, Object value, Duration retention) {
    var body = SupervisorClient.message("Set" + kind, owner, id, "key", key, "value", Json.plain(value));
    if (owner.equals("ti_id")) {
      body.put("expires_at", retention.isZero() || retention.isNegative() ? null : Instant.now().plus(retention));
    }
    client.ask(body);
  }

  @Override
  public void delete(String key) {
    client.ask(SupervisorClient.message("Delete" + kind, owner, id, "key", key));
  }

  @Override
  public void clear() {
    client.ask(SupervisorClient.message("Clear" + kind, owner, id));
  }
}
