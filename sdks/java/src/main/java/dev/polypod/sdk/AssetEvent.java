package dev.polypod.sdk;

import java.time.Instant;
import java.util.Map;

/** One event of an asset. What the event does not have is null. */
public final class AssetEvent {
  public final Instant timestamp;
  public final Asset asset;
  public final Map<String, Object> extra;
  public final String sourceDagId;
  public final String sourceRunId;
  public final String sourceTaskId;
  public final String partitionKey;

  public AssetEvent(
      Instant timestamp,
      Asset asset,
      Map<String, Object> extra,
      String sourceDagId,
      String sourceRunId,
      String sourceTaskId,
      String partitionKey) {
    this.timestamp = timestamp;
    this.asset = asset;
    this.extra = extra;
    this.sourceDagId = sourceDagId;
    this.sourceRunId = sourceRunId;
    this.sourceTaskId = sourceTaskId;
    this.partitionKey = partitionKey;
  }
}
