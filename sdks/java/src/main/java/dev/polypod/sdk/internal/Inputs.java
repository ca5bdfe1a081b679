package dev.polypod.sdk.internal;

import dev.polypod.sdk.Client;
import dev.polypod.sdk.InputTask;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Fills a task's input from the arguments of the stub call (schema 2026-10-30). */
final class Inputs {
  private Inputs() {}

  /** Thrown before the task's body runs. */
  static final class BindingException extends Exception {
    BindingException(String message) {
      super(message);
    }
  }

  static Class<?> inputClass(Class<?> task) throws BindingException {
    for (Class<?> at = task; at != null; at = at.getSuperclass()) {
      for (Type type : at.getGenericInterfaces()) {
        if (type instanceof ParameterizedType && ((ParameterizedType) type).getRawType() == InputTask.class) {
          Type argument = ((ParameterizedType) type).getActualTypeArguments()[0];
          if (argument instanceof Class) {
            return (Class<?>) argument;
          }
        }
      }
    }
    throw new BindingException(task.getName() + " must name its input class: implements InputTask<YourInput>");
  }

  static boolean byPosition(List<Slot> slots) {
    return slots.stream().anyMatch(slot -> slot.position() >= 0);
  }

  /** Returns slots that are bound by position in that order, others as they are. */
  static List<Slot> inOrder(List<Slot> slots) throws BindingException {
    if (!byPosition(slots)) {
      return slots;
    }
    Slot[] ordered = new Slot[slots.size()];
    for (Slot slot : slots) {
      int place = slot.position();
      if (place < 0 || place >= ordered.length || ordered[place] != null) {
        throw new BindingException(
            "field " + slot.own + " needs an @ArgPosition of its own, from 0 to " + (ordered.length - 1));
      }
      ordered[place] = slot;
    }
    return Arrays.asList(ordered);
  }

  /**
   * Returns a filled input. By position, arguments that nobody passed are dropped if the number fits then; by name, what
   * matches nothing is a warning and no error (upstream's contributing-docs/30).
   *
   * @param olderSchema whether the supervisor's schema has no arguments, so that the Dag may have passed some
   */
  static Object bind(Class<?> input, List<?> bindings, boolean olderSchema, Client client) throws Exception {
    List<Slot> slots = inOrder(Slot.of(input));
    List<Map<String, Object>> given = new ArrayList<>();
    for (Object binding : bindings == null ? List.of() : bindings) {
      given.add(Wire.map(binding));
    }
    // default values would pass for what the Dag has passed
    if (bindings == null && !slots.isEmpty()) {
      throw new BindingException(
          "the task takes arguments and was given none: "
              + (olderSchema
                  ? "the supervisor speaks schema 2026-06-16, which has no arguments"
                  : "the Dag calls it without, or maps it, and Airflow sends a mapped stub no arguments"));
    }
    if (!byPosition(slots)) {
      return byName(input, slots, given, client);
    }
    List<Map<String, Object>> fitting = given.size() == slots.size() ? given : passed(given);
    if (slots.size() != fitting.size()) {
      throw new BindingException("the task takes " + slots.size() + " argument(s) and was given " + given.size());
    }
    Map<Slot, Object> values = new LinkedHashMap<>();
    for (int place = 0; place < slots.size(); place++) {
      values.put(slots.get(place), value(fitting.get(place), slots.get(place).type, client));
    }
    return filled(input, values);
  }

  /** Returns an input that holds these values; a record is made of them. */
  private static Object filled(Class<?> input, Map<Slot, Object> values) throws Exception {
    try {
      if (Slot.isRecord(input)) {
        return record(input, values);
      }
      Object filled = Registration.make(input);
      for (Map.Entry<Slot, Object> entry : values.entrySet()) {
        entry.getKey().set(filled, entry.getValue());
      }
      return filled;
    } catch (InvocationTargetException error) {
      throw error.getCause() instanceof Exception ? (Exception) error.getCause() : error;
    }
  }

  private static Object record(Class<?> input, Map<Slot, Object> values) throws Exception {
    List<Class<?>> types = new ArrayList<>();
    List<Object> arguments = new ArrayList<>();
    for (Field component : input.getDeclaredFields()) {
      if (Modifier.isStatic(component.getModifiers())) {
        continue;
      }
      types.add(component.getType());
      Object value = null;
      for (Map.Entry<Slot, Object> entry : values.entrySet()) {
        value = entry.getKey().own.equals(component.getName()) ? entry.getValue() : value;
      }
      if (value == null && component.getType().isPrimitive()) {
        throw new BindingException(
            "argument " + component.getName() + " was not given, and " + component.getType() + " has no null");
      }
      arguments.add(value);
    }
    Constructor<?> made = input.getDeclaredConstructor(types.toArray(new Class<?>[0]));
    made.trySetAccessible();
    return made.newInstance(arguments.toArray());
  }

  /** Returns the arguments that the author of the Dag has passed, without those of Python's defaults. */
  static List<Map<String, Object>> passed(List<Map<String, Object>> given) {
    List<Map<String, Object>> kept = new ArrayList<>(given);
    kept.removeIf(binding -> Boolean.TRUE.equals(binding.get("from_default")));
    return kept;
  }

  private static Object byName(Class<?> input, List<Slot> slots, List<Map<String, Object>> given, Client client)
      throws Exception {
    Map<Slot, Object> values = new LinkedHashMap<>();
    List<Map<String, Object>> left = new ArrayList<>(given);
    List<String> unfilled = new ArrayList<>();
    for (Slot slot : slots) {
      Map<String, Object> binding = match(slot.name(), given);
      if (binding == null) {
        unfilled.add(slot.name());
        continue;
      }
      left.remove(binding);
      values.put(slot, value(binding, slot.type, client));
    }
    List<Map<String, Object>> explicit = passed(given);
    boolean pinned = slots.stream().anyMatch(Slot::pinned);
    if (values.isEmpty() && explicit.size() == 1 && !pinned) {
      return value(explicit.get(0), input, client);
    }
    Object filled = filled(input, values);
    for (String name : unfilled) {
      warn("the task's argument was not given; its field keeps its value", name);
    }
    for (Map<String, Object> binding : passed(left)) {
      warn("the task takes no argument of this name", binding.get("name"));
    }
    return filled;
  }

  static void warn(String message, Object argument) {
    LogSink.INSTANCE.log(LogSink.WARNING, "polypod.sdk", message, Map.of("argument", String.valueOf(argument)), null);
  }

  /** Returns the argument of this name: as it is spelled, else ignoring case and underscores. */
  private static Map<String, Object> match(String name, List<Map<String, Object>> given) {
    for (Map<String, Object> binding : given) {
      if (name.equals(binding.get("name"))) {
        return binding;
      }
    }
    for (Map<String, Object> binding : given) {
      if (normal(name).equals(normal((String) binding.get("name")))) {
        return binding;
      }
    }
    return null;
  }

  private static Object value(Map<String, Object> binding, Type type, Client client) throws BindingException {
    Object value =
        "xcom".equals(binding.get("kind")) ? client.getXCom((String) binding.get("task_id")) : binding.get("value");
    if (value == null && type instanceof Class && ((Class<?>) type).isPrimitive()) {
      // Jackson would make it zero
      String origin = "xcom".equals(binding.get("kind")) ? ": task " + binding.get("task_id") + " has left none" : "";
      throw new BindingException("argument " + binding.get("name") + " is null and does not fit " + type + origin);
    }
    try {
      return Json.into(value, type);
    } catch (IllegalArgumentException error) {
      throw new BindingException(
          "argument " + binding.get("name") + " does not fit " + type.getTypeName() + ": " + error.getMessage());
    }
  }

  private static String normal(String name) {
    return name.replace("_", "").toLowerCase(Locale.ROOT);
  }
}
