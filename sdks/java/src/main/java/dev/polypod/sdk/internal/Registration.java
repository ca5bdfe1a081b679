package dev.polypod.sdk.internal;

import dev.polypod.sdk.InputTask;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Modifier;

/** Whether a class can be made and filled: said when it is registered, not when it runs. */
public final class Registration {
  private Registration() {}

  /**
   * Checks a task and its input class.
   *
   * @throws IllegalArgumentException no object of it can be made, or nothing of its input could be filled
   */
  public static void check(Class<?> task) {
    constructor(task);
    if (!InputTask.class.isAssignableFrom(task)) {
      return;
    }
    Class<?> input;
    try {
      input = Inputs.inputClass(task);
      Inputs.inOrder(Slot.of(input));
    } catch (Inputs.BindingException error) {
      throw new IllegalArgumentException(task.getName() + ": " + error.getMessage(), error);
    }
    if (Slot.of(input).isEmpty()) {
      throw new IllegalArgumentException(
          input.getName() + ", the input of " + task.getName() + ", has nothing that an argument could be bound to: "
              + "give it public fields, setters, or make it a record; a task without arguments implements Task");
    }
    if (!Slot.isRecord(input)) {
      constructor(input);
    }
  }

  /** Returns a new object, made by a constructor of any visibility. */
  static <T> T make(Class<T> type) throws Exception {
    try {
      return constructor(type).newInstance();
    } catch (InvocationTargetException error) {
      if (error.getCause() instanceof Exception) {
        throw (Exception) error.getCause();
      }
      throw error;
    }
  }

  private static <T> Constructor<T> constructor(Class<T> type) {
    if (type.isInterface() || Modifier.isAbstract(type.getModifiers())) {
      throw new IllegalArgumentException(type.getName() + " is abstract; register a class that can be made");
    }
    if (type.getEnclosingClass() != null && !Modifier.isStatic(type.getModifiers()) && (type.isMemberClass() || type.isLocalClass())) {
      throw new IllegalArgumentException(type.getName() + " is an inner class; make it static, or a class of its own");
    }
    Constructor<T> found;
    try {
      found = type.getDeclaredConstructor();
    } catch (NoSuchMethodException error) {
      throw new IllegalArgumentException(
          type.getName() + " has no constructor without parameters; add one (in Kotlin: give every parameter a default)");
    }
    if (!found.trySetAccessible()) {
      throw new IllegalArgumentException(
          type.getName() + " is in a module that does not open its package; add 'opens " + type.getPackageName() + "'");
    }
    return found;
  }
}
