package dev.polypod.sdk;

/** What is remembered of an asset. It needs Airflow. */
public interface AssetStateStore {
  /** Returns the value under a key, null if there is none. */
  Object get(String key);

  /** Keeps a value. */
  void set(String key, Object value);

  /** Removes a value; none is no error. */
  void delete(String key);

  /** Removes all of them. */
  void clear();
}
