package dev.polypod.sdk.internal;

import dev.polypod.sdk.Bundle;
import dev.polypod.sdk.InputTask;
import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What the Dag processor is answered: which task handlers there are, and how they take their arguments. */
final class Declarations {
  private Declarations() {}

  /** Returns the answer to a first message that is not StartupDetails, null to one that is. */
  static Map<String, Object> answer(Map<String, Object> first, Bundle bundle)
      throws Inputs.BindingException {
    Object file = first.get("file");
    if ("DagFileParseRequest".equals(first.get("type"))) {
      // this SDK defines no Dags, it only runs tasks of theirs
      return SupervisorClient.message("DagFileParsingResult", "fileloc", file, "serialized_dags", List.of());
    }
    if (!"TaskHandlerParseRequest".equals(first.get("type"))) {
      return null;
    }
    Map<String, Object> handlers = new LinkedHashMap<>();
    for (Map.Entry<String, Map<String, Class<?>>> dag : bundle.handlers().entrySet()) {
      List<Object> declared = new ArrayList<>();
      for (Map.Entry<String, Class<?>> task : dag.getValue().entrySet()) {
        declared.add(declare(task.getKey(), task.getValue()));
      }
      handlers.put(dag.getKey(), declared);
    }
    return SupervisorClient.message("TaskHandlerParsingResult", "fileloc", file, "task_handlers", handlers);
  }

  private static Map<String, Object> declare(String taskId, Class<?> task) throws Inputs.BindingException {
    Map<String, Object> made = new HashMap<>();
    made.put("task_id", taskId);
    made.put("binding", "named");
    List<Object> params = new ArrayList<>();
    made.put("params", params);
    if (InputTask.class.isAssignableFrom(task)) {
      List<Slot> slots = Inputs.inOrder(Slot.of(Inputs.inputClass(task)));
      made.put("binding", Inputs.byPosition(slots) ? "positional" : "named");
      for (Slot slot : slots) {
        Map<String, Object> param = new HashMap<>();
        param.put("name", slot.name());
        param.put("exact_name", false);
        String type = jsonType(slot.type);
        param.put("value_schema", type == null ? null : Map.of("type", type));
        params.add(param);
      }
    }
    return made;
  }

  /** Returns the JSON type that fits a Java type, null where there may be several. */
  private static String jsonType(Type type) {
    if (type instanceof GenericArrayType) {
      return "array";
    }
    Type raw = type instanceof ParameterizedType ? ((ParameterizedType) type).getRawType() : type;
    if (!(raw instanceof Class) || raw == Object.class) {
      return null;
    }
    Class<?> kind = (Class<?>) raw;
    if (CharSequence.class.isAssignableFrom(kind)) {
      return "string";
    }
    if (kind == boolean.class || kind == Boolean.class) {
      return "boolean";
    }
    if (List.of(double.class, float.class, Double.class, Float.class, BigDecimal.class).contains(kind)) {
      return "number";
    }
    if (kind == BigInteger.class || (kind.isPrimitive() && kind != char.class) || isBoxedInteger(kind)) {
      return "integer";
    }
    if (Collection.class.isAssignableFrom(kind) || (kind.isArray() && kind != byte[].class)) {
      return "array";
    }
    return Map.class.isAssignableFrom(kind) ? "object" : null;
  }

  private static boolean isBoxedInteger(Class<?> kind) {
    return kind == Long.class || kind == Integer.class || kind == Short.class || kind == Byte.class;
  }
}
