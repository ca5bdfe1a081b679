package dev.polypod.sdk;

/** Fails a task for good, even if it has tries left. */
public final class FailException extends RuntimeException {
  public FailException(String message) {
    super(message);
  }

  public FailException(String message, Throwable cause) {
    super(message, cause);
  }
}
