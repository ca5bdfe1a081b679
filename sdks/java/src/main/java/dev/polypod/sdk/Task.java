package dev.polypod.sdk;

/** A task. A class that implements it needs a constructor without parameters. */
public interface Task {
  /**
   * Does the task's work. Returning is success; an exception is a failure, and another try if there is one left.
   *
   * @throws Exception to fail; see {@link SkipException}, {@link FailException} and {@link RetryException}
   */
  void execute(Context context, Client client) throws Exception;
}
