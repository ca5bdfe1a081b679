package dev.polypod.sdk.internal;

import dev.polypod.sdk.ArgName;
import dev.polypod.sdk.ArgPosition;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.InputTask;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
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

  /** Returns the fields that can be bound. */
  static List<Field> fields(Class<?> input) {
    List<Field> fields = new ArrayList<>();
    for (Field field : input.getFields()) {
      if (!Modifier.isStatic(field.getModifiers()) && !Modifier.isFinal(field.getModifiers())) {
        fields.add(field);
      }
    }
    return fields;
  }

  static boolean byPosition(List<Field> fields) {
    return fields.stream().anyMatch(field -> field.isAnnotationPresent(ArgPosition.class));
  }

  static String name(Field field) {
    ArgName pinned = field.getAnnotation(ArgName.class);
    return pinned == null ? field.getName() : pinned.value();
  }

  /** Returns fields that are bound by position, in that order. */
  static List<Field> inOrder(List<Field> fields) throws BindingException {
    Field[] ordered = new Field[fields.size()];
    for (Field field : fields) {
      ArgPosition position = field.getAnnotation(ArgPosition.class);
      int place = position == null ? -1 : position.value();
      if (place < 0 || place >= ordered.length || ordered[place] != null) {
        throw new BindingException(
            "field " + field.getName() + " needs an @ArgPosition of its own, from 0 to " + (ordered.length - 1));
      }
      ordered[place] = field;
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
    List<Field> fields = fields(input);
    List<Map<String, Object>> given = new ArrayList<>();
    for (Object binding : bindings == null ? List.of() : bindings) {
      given.add(Wire.map(binding));
    }
    boolean named = !byPosition(fields);
    // by name, default values would pass for what the Dag has passed
    if (bindings == null && !fields.isEmpty() && (olderSchema || !named)) {
      throw new BindingException(
          "the task takes arguments and was given none: the Dag calls it without, or the supervisor speaks "
              + "schema 2026-06-16, which has no arguments");
    }
    if (named) {
      return byName(input, fields, given, client);
    }
    List<Map<String, Object>> fitting = given.size() == fields.size() ? given : passed(given);
    if (fields.size() != fitting.size()) {
      throw new BindingException("the task takes " + fields.size() + " argument(s) and was given " + given.size());
    }
    Object filled = input.getDeclaredConstructor().newInstance();
    List<Field> ordered = inOrder(fields);
    for (int place = 0; place < ordered.size(); place++) {
      set(filled, ordered.get(place), fitting.get(place), client);
    }
    return filled;
  }

  /** Returns the arguments that the author of the Dag has passed, without those of Python's defaults. */
  static List<Map<String, Object>> passed(List<Map<String, Object>> given) {
    List<Map<String, Object>> kept = new ArrayList<>(given);
    kept.removeIf(binding -> Boolean.TRUE.equals(binding.get("from_default")));
    return kept;
  }

  private static Object byName(Class<?> input, List<Field> fields, List<Map<String, Object>> given, Client client)
      throws Exception {
    Object filled = input.getDeclaredConstructor().newInstance();
    List<Map<String, Object>> left = new ArrayList<>(given);
    List<String> unfilled = new ArrayList<>();
    for (Field field : fields) {
      Map<String, Object> binding = match(name(field), given);
      if (binding == null) {
        unfilled.add(name(field));
        continue;
      }
      left.remove(binding);
      set(filled, field, binding, client);
    }
    List<Map<String, Object>> explicit = passed(given);
    boolean pinned = fields.stream().anyMatch(field -> field.isAnnotationPresent(ArgName.class));
    if (unfilled.size() == fields.size() && explicit.size() == 1 && !fields.isEmpty() && !pinned) {
      return value(explicit.get(0), input, client);
    }
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

  private static void set(Object filled, Field field, Map<String, Object> binding, Client client) throws Exception {
    field.set(filled, value(binding, field.getGenericType(), client));
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
