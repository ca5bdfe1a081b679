package dev.polypod.sdk;

import dev.polypod.sdk.internal.Registration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

/** The tasks that a jar holds. */
public final class Bundle {
  private final Map<String, Map<String, Class<?>>> dags = new LinkedHashMap<>();

  /**
   * Adds a task.
   *
   * @param task a class that implements {@link Task} or {@link InputTask}
   * @throws IllegalArgumentException it implements neither, it or its input cannot be made or filled, or the task is there
   *     already
   */
  public Bundle register(String dagId, String taskId, Class<?> task) {
    if (!Task.class.isAssignableFrom(task) && !InputTask.class.isAssignableFrom(task)) {
      throw new IllegalArgumentException(task.getName() + " implements neither Task nor InputTask");
    }
    Registration.check(task);
    if (dags.computeIfAbsent(dagId, id -> new LinkedHashMap<>()).putIfAbsent(taskId, task) != null) {
      throw new IllegalArgumentException("task " + taskId + " of Dag " + dagId + " is registered twice");
    }
    return this;
  }

  /** Returns a task's class, null if there is no such task. */
  public Class<?> find(String dagId, String taskId) {
    return dags.getOrDefault(dagId, Map.of()).get(taskId);
  }

  /** Returns the class of every task, by Dag and task id, in the order of their registration. */
  public Map<String, Map<String, Class<?>>> handlers() {
    return dags;
  }

  /** Returns the ids of every Dag's tasks. */
  public Map<String, Set<String>> tasks() {
    Map<String, Set<String>> all = new TreeMap<>();
    dags.forEach((dagId, tasks) -> all.put(dagId, new TreeSet<>(tasks.keySet())));
    return all;
  }
}
