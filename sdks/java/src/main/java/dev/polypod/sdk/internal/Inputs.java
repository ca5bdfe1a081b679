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

  static Object bind(Class<?> input, List<?> bindings, Client client) throws Exception {
    if (bindings == null) {
      throw new BindingException(
          "the task takes arguments and was given none: the Dag calls it without, or the SDK's jar is that for "
              + "supervisor schema 2026-06-16, which has no arguments");
    }
    List<Field> fields = new ArrayList<>();
    for (Field field : input.getFields()) {
      if (!Modifier.isStatic(field.getModifiers()) && !Modifier.isFinal(field.getModifiers())) {
        fields.add(field);
      }
    }
    Object filled = input.getDeclaredConstructor().newInstance();
    if (fields.stream().anyMatch(field -> field.isAnnotationPresent(ArgPosition.class))) {
      byPosition(filled, fields, bindings, client);
    } else {
      byName(filled, fields, bindings, client);
    }
    return filled;
  }

  private static void byPosition(Object filled, List<Field> fields, List<?> bindings, Client client) throws Exception {
    if (fields.size() != bindings.size()) {
      throw new BindingException("the task takes " + fields.size() + " argument(s) and was given " + bindings.size());
    }
    for (Field field : fields) {
      ArgPosition position = field.getAnnotation(ArgPosition.class);
      if (position == null || position.value() < 0 || position.value() >= bindings.size()) {
        throw new BindingException("field " + field.getName() + " needs an @ArgPosition from 0 to " + (fields.size() - 1));
      }
      set(filled, field, Wire.map(bindings.get(position.value())), client);
    }
  }

  private static void byName(Object filled, List<Field> fields, List<?> bindings, Client client) throws Exception {
    Map<String, Map<String, Object>> given = new LinkedHashMap<>();
    for (Object binding : bindings) {
      Map<String, Object> map = Wire.map(binding);
      given.put(normal((String) map.get("name")), map);
    }
    List<String> names = new ArrayList<>();
    for (Map<String, Object> binding : given.values()) {
      names.add((String) binding.get("name"));
    }
    for (Field field : fields) {
      ArgName pinned = field.getAnnotation(ArgName.class);
      String name = pinned == null ? field.getName() : pinned.value();
      Map<String, Object> binding = given.remove(normal(name));
      if (binding == null) {
        throw new BindingException("the task's argument " + name + " was not given; given: " + names);
      }
      set(filled, field, binding, client);
    }
    if (!given.isEmpty()) {
      throw new BindingException("the task has no argument " + given.values().iterator().next().get("name"));
    }
  }

  private static void set(Object filled, Field field, Map<String, Object> binding, Client client) throws Exception {
    Object value =
        "xcom".equals(binding.get("kind")) ? client.getXCom((String) binding.get("task_id")) : binding.get("value");
    try {
      field.set(filled, Json.into(value, field.getGenericType()));
    } catch (IllegalArgumentException error) {
      throw new BindingException(
          "argument " + binding.get("name") + " does not fit " + field.getGenericType().getTypeName() + ": "
              + error.getMessage());
    }
  }

  private static String normal(String name) {
    return name.replace("_", "").toLowerCase(Locale.ROOT);
  }
}
