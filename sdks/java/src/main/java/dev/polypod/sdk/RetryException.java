package dev.polypod.sdk;

import java.time.Duration;

/** Fails a task and, if it has tries left, asks for the next one after a time of its own choice. */
public final class RetryException extends RuntimeException {
  private final Duration after;

  public RetryException(Duration after, String message) {
    super(message);
    this.after = after;
  }

  public Duration after() {
    return after;
  }
}
