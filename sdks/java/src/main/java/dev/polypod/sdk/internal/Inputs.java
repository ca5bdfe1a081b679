package dev.polypod.sdk.internal;

import dev.polypod.sdk.ArgName;
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
    Map<String, Map<String, Object>> given = new LinkedHashMap<>();
    for (Object binding : bindings) {
      Map<String, Object> map = Wire.map(binding);
      given.put(normal((String) map.get("name")), map);
    }
    List<String> names = new ArrayList<>();
    for (Map<String, Object> binding : given.values()) {
      names.add((String) binding.get("name"));
    }
    Object filled = input.getDeclaredConstructor().newInstance();
    for (Field field : input.getFields()) {
      if (Modifier.isStatic(field.getModifiers()) || Modifier.isFinal(field.getModifiers())) {
        continue;
      }
      ArgName pinned = field.getAnnotation(ArgName.class);
      String name = pinned == null ? field.getName() : pinned.value();
      Map<String, Object> binding = given.remove(normal(name));
      if (binding == null) {
        throw new BindingException("the task's argument " + name + " was not given; given: " + names);
      }
      Object value =
          "xcom".equals(binding.get("kind")) ? client.getXCom((String) binding.get("task_id")) : binding.get("value");
      try {
        field.set(filled, Json.into(value, field.getGenericType()));
      } catch (IllegalArgumentException error) {
        throw new BindingException(
            "argument " + name + " does not fit " + field.getGenericType().getTypeName() + ": " + error.getMessage());
      }
    }
    if (!given.isEmpty()) {
      throw new BindingException("the task has no argument " + given.values().iterator().next().get("name"));
    }
    return filled;
  }

  private static String normal(String name) {
    return name.replace("_", "").toLowerCase(Locale.ROOT);
  }
}
