package dev.polypod.sdk;

/** Ends a task as skipped. */
public final class SkipException extends RuntimeException {
  public SkipException(String reason) {
    super(reason);
  }
}
