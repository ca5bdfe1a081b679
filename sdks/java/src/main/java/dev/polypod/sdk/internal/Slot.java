package dev.polypod.sdk.internal;

import dev.polypod.sdk.ArgName;
import dev.polypod.sdk.ArgPosition;
import java.lang.reflect.AnnotatedElement;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** One place of an input class that receives an argument: a public field, a setter, or a component of a record. */
final class Slot {
  final String own;
  final Type type;
  private final ArgName name;
  private final ArgPosition position;
  private final Field field;
  private final Method setter;

  private Slot(String own, Type type, Field field, Method setter, AnnotatedElement... annotated) {
    this.own = own;
    this.type = type;
    this.field = field;
    this.setter = setter;
    ArgName foundName = null;
    ArgPosition foundPosition = null;
    for (AnnotatedElement element : annotated) {
      if (element != null) {
        foundName = foundName == null ? element.getAnnotation(ArgName.class) : foundName;
        foundPosition = foundPosition == null ? element.getAnnotation(ArgPosition.class) : foundPosition;
      }
    }
    this.name = foundName;
    this.position = foundPosition;
  }

  String name() {
    return name == null ? own : name.value();
  }

  boolean pinned() {
    return name != null;
  }

  /** Returns the place of its argument, -1 if it is bound by name. */
  int position() {
    return position == null ? -1 : position.value();
  }

  void set(Object filled, Object value) throws ReflectiveOperationException {
    if (field != null) {
      field.set(filled, value);
    } else {
      setter.invoke(filled, value);
    }
  }

  /** Returns the slots of a class; those of a record in the order of its constructor. */
  static List<Slot> of(Class<?> input) {
    if (isRecord(input)) {
      List<Slot> components = new ArrayList<>();
      for (Field component : input.getDeclaredFields()) {
        if (!Modifier.isStatic(component.getModifiers())) {
          components.add(new Slot(component.getName(), component.getGenericType(), null, null, component));
        }
      }
      return components;
    }
    Map<String, Slot> slots = new LinkedHashMap<>();
    for (Field field : input.getFields()) {
      if (!Modifier.isStatic(field.getModifiers()) && !Modifier.isFinal(field.getModifiers())) {
        field.trySetAccessible();
        slots.put(field.getName(), new Slot(field.getName(), field.getGenericType(), field, null, field));
      }
    }
    Method[] methods = input.getMethods();
    // the order of a class's methods is not defined
    Arrays.sort(methods, Comparator.comparing(Method::getName));
    for (Method method : methods) {
      String name = property(method);
      if (name == null) {
        continue;
      }
      Field behind = declared(input, name);
      boolean fits = behind == null || behind.getType() == method.getParameterTypes()[0];
      if (fits && !slots.containsKey(name)) {
        method.trySetAccessible();
        slots.put(name, new Slot(name, method.getGenericParameterTypes()[0], null, method, method, behind));
      }
    }
    return new ArrayList<>(slots.values());
  }

  static boolean isRecord(Class<?> type) {
    // Class.isRecord is newer than Java 11
    return type.getSuperclass() != null && "java.lang.Record".equals(type.getSuperclass().getName());
  }

  /** Returns the property that a method sets, null if it is no setter. */
  private static String property(Method method) {
    String name = method.getName();
    boolean setter = name.length() > 3 && name.startsWith("set") && !Character.isLowerCase(name.charAt(3));
    if (!setter || method.getParameterCount() != 1 || Modifier.isStatic(method.getModifiers()) || method.isBridge()) {
      return null;
    }
    return Character.toLowerCase(name.charAt(3)) + name.substring(4);
  }

  private static Field declared(Class<?> type, String name) {
    for (Class<?> at = type; at != null; at = at.getSuperclass()) {
      for (Field field : at.getDeclaredFields()) {
        if (field.getName().equals(name)) {
          return field;
        }
      }
    }
    return null;
  }
}
