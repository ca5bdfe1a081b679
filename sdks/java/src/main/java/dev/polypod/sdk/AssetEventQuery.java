package dev.polypod.sdk;

import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;

/** Says which asset events are wanted. Every method but the two that make one returns the query itself. */
public final class AssetEventQuery {
  private final Map<String, Object> fields = new LinkedHashMap<>();
  private final boolean ofAlias;

  private AssetEventQuery(boolean ofAlias) {
    this.ofAlias = ofAlias;
    fields.put("after", null);
    fields.put("before", null);
    fields.put("limit", null);
    fields.put("ascending", true);
  }

  /** The events of an asset, which is named by its name, its URI, or both. */
  public static AssetEventQuery of(Asset asset) {
    AssetEventQuery query = new AssetEventQuery(false);
    return query.with("name", asset.name).with("uri", asset.uri);
  }

  /** The events of an asset alias. */
  public static AssetEventQuery ofAlias(String alias) {
    return new AssetEventQuery(true).with("alias_name", alias);
  }

  public AssetEventQuery after(Instant time) {
    return with("after", time);
  }

  public AssetEventQuery before(Instant time) {
    return with("before", time);
  }

  /** The largest number of events; all of them if it is not set. */
  public AssetEventQuery limit(int limit) {
    return with("limit", limit);
  }

  /** The latest first. */
  public AssetEventQuery descending() {
    return with("ascending", false);
  }

  /** Only events with these extras; it needs Airflow 3.4. */
  public AssetEventQuery extra(Map<String, String> extra) {
    return with("extra", extra);
  }

  /** Only events of this partition; it needs Airflow 3.4. */
  public AssetEventQuery partitionKey(String key) {
    return with("partition_key", key);
  }

  /** Only events of partitions that match; it needs Airflow 3.4. */
  public AssetEventQuery partitionKeyPattern(String pattern) {
    return with("partition_key_regexp_pattern", pattern);
  }

  /** Returns the message that asks for them. */
  public Map<String, Object> message() {
    Map<String, Object> body = new LinkedHashMap<>(fields);
    body.put("type", ofAlias ? "GetAssetEventByAssetAlias" : "GetAssetEventByAsset");
    return body;
  }

  private AssetEventQuery with(String name, Object value) {
    fields.put(name, value);
    return this;
  }
}
