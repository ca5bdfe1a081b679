package dev.polypod.sdk;

import java.time.Duration;

/** What a task remembers from one try to the next. */
public interface TaskStateStore {
  /** Returns the value under a key, null if there is none. Integers are Long or BigInteger. */
  Object get(String key);

  /** Keeps a value for as many days as Airflow is configured to. */
  void set(String key, Object value);

  /** Keeps a value for a time; {@link Duration#ZERO} keeps it for good. */
  void set(String key, Object value, Duration retention);

  /** Removes a value; none is no error. */
  void delete(String key);

  /** Removes all of them. */
  void clear();
}
