package dev.polypod.sdk;

import dev.polypod.sdk.internal.Runtime;
import dev.polypod.sdk.internal.TaskList;
import java.nio.file.Path;

/** Runs a bundle: connects to the supervisor, runs one task, reports how it ended, and ends the JVM. */
public final class Server {
  private final String comm;
  private final String logs;
  private final Path manifest;

  private Server(String comm, String logs, Path manifest) {
    this.comm = comm;
    this.logs = logs;
    this.manifest = manifest;
  }

  /**
   * Reads the command line: {@code --comm} and {@code --logs}, as a supervisor gives them; or, in a build,
   * {@code --polypod-manifest=FILE}, which has {@link #serve} write a manifest that lists the bundle's tasks.
   *
   * @throws IllegalArgumentException {@code --comm} or {@code --logs} is missing: both are given by a supervisor
   */
  public static Server create(String[] args) {
    String comm = null;
    String logs = null;
    Path manifest = null;
    for (String argument : args) {
      if (argument.startsWith("--comm=")) {
        comm = argument.substring("--comm=".length());
      } else if (argument.startsWith("--logs=")) {
        logs = argument.substring("--logs=".length());
      } else if (argument.startsWith("--polypod-manifest=")) {
        manifest = Path.of(argument.substring("--polypod-manifest=".length()));
      }
    }
    if (manifest == null && (comm == null || logs == null)) {
      throw new IllegalArgumentException(
          "--comm=HOST:PORT and --logs=HOST:PORT are both required: a bundle is started by a supervisor, not by hand");
    }
    return new Server(comm, logs, manifest);
  }

  /**
   * Runs one task and ends the JVM: with 0 if the task's end was delivered, else with 1. Threads that the task left
   * behind do not hold it.
   */
  public void serve(Bundle bundle) {
    int code = 1;
    try {
      if (manifest != null) {
        TaskList.write(bundle, manifest);
        code = 0;
      } else {
        code = new Runtime(bundle, comm, logs).run();
      }
    } catch (Throwable error) {
      System.err.println("polypod-sdk: the runtime failed: " + error.getClass().getName());
      error.printStackTrace();
    } finally {
      System.exit(code);
    }
  }
}
