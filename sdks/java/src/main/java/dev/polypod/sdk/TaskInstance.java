package dev.polypod.sdk;

/** Which task instance runs. */
public final class TaskInstance {
  public final String id;
  public final String dagId;
  public final String runId;
  public final String taskId;
  public final int tryNumber;

  /** -1 for a task that is not mapped. */
  public final int mapIndex;

  public TaskInstance(String id, String dagId, String runId, String taskId, int tryNumber, int mapIndex) {
    this.id = id;
    this.dagId = dagId;
    this.runId = runId;
    this.taskId = taskId;
    this.tryNumber = tryNumber;
    this.mapIndex = mapIndex;
  }

  @Override
  public String toString() {
    return dagId + "." + taskId + " " + runId + " try " + tryNumber;
  }
}
