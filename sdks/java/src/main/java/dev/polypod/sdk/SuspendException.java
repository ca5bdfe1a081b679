package dev.polypod.sdk;

/**
 * Ends an attempt until something has happened; the task is then started again from its beginning. Let it pass: a task
 * that catches it goes on without what it waits for.
 */
public abstract class SuspendException extends RuntimeException {
  protected SuspendException(String message) {
    super(message);
  }
}
