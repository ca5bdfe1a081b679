package dev.polypod.sdk;

/** What is known of the running task; nothing here asks the supervisor. */
public interface Context {
  TaskInstance getTaskInstance();

  DagRun getDagRun();

  /** Tells whether the supervisor wants the task to end. The task's thread is interrupted as well. */
  boolean isCancelled();
}
