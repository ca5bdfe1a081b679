package dev.polypod.sdk.internal;

import java.lang.reflect.Proxy;

/** Catches SIGTERM and SIGINT, so that the task can end in its own way before the JVM does. */
final class Signals {
  private Signals() {}

  /** Calls {@code action} at a signal. The class is not in every JVM: without it the JVM just ends, as it would. */
  static void on(Runnable action, String... names) {
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> handler = Class.forName("sun.misc.SignalHandler");
      Object proxy =
          Proxy.newProxyInstance(
              handler.getClassLoader(),
              new Class<?>[] {handler},
              (self, method, arguments) -> {
                if (method.getName().equals("handle")) {
                  action.run();
                }
                return null;
              });
      for (String name : names) {
        Object number = signal.getConstructor(String.class).newInstance(name);
        signal.getMethod("handle", signal, handler).invoke(null, number, proxy);
      }
    } catch (ReflectiveOperationException unavailable) {
      LogSink.INSTANCE.log(LogSink.DEBUG, "polypod.sdk", "signals cannot be caught", null, unavailable);
    }
  }
}
