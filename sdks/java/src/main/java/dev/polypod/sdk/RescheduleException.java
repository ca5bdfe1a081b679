package dev.polypod.sdk;

import java.time.Instant;

/** Frees the worker until a time; the same try of the task is then started again. What a sensor does. */
public final class RescheduleException extends SuspendException {
  private final Instant at;

  public RescheduleException(Instant at) {
    super("to be started again at " + at);
    this.at = at;
  }

  public Instant at() {
    return at;
  }
}
