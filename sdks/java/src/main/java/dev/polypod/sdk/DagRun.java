package dev.polypod.sdk;

import java.time.Instant;
import java.util.Map;

/** Which run the task belongs to. A time that the run does not have is null. */
public final class DagRun {
  public final String dagId;
  public final String runId;
  public final String runType;
  public final Instant logicalDate;
  public final Instant dataIntervalStart;
  public final Instant dataIntervalEnd;

  /** The run's params. */
  public final Map<String, Object> conf;

  public DagRun(
      String dagId,
      String runId,
      String runType,
      Instant logicalDate,
      Instant dataIntervalStart,
      Instant dataIntervalEnd,
      Map<String, Object> conf) {
    this.dagId = dagId;
    this.runId = runId;
    this.runType = runType;
    this.logicalDate = logicalDate;
    this.dataIntervalStart = dataIntervalStart;
    this.dataIntervalEnd = dataIntervalEnd;
    this.conf = conf;
  }
}
