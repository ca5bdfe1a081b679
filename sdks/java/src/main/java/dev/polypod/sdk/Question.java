package dev.polypod.sdk;

import java.time.Duration;
import java.util.List;
import java.util.Map;

/** What a person is asked. The fields may be set before it is used. */
public final class Question {
  public final String subject;
  public final List<String> options;

  /** The text below the subject, null for none. */
  public String body;

  /** What is taken if nobody has answered within the timeout, null for none. */
  public List<String> defaults;

  /** Whether several options may be chosen. */
  public boolean multiple;

  public Map<String, Object> params = Map.of();

  /** How long to wait for an answer, null for ever. */
  public Duration timeout;

  public Question(String subject, List<String> options) {
    this.subject = subject;
    this.options = options;
  }
}
