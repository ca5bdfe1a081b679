package dev.polypod.sdk.internal;

import dev.polypod.sdk.Bundle;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.DagRun;
import dev.polypod.sdk.FailException;
import dev.polypod.sdk.InputTask;
import dev.polypod.sdk.RetryException;
import dev.polypod.sdk.SkipException;
import dev.polypod.sdk.SuspendException;
import dev.polypod.sdk.Task;
import dev.polypod.sdk.TaskInput;
import dev.polypod.sdk.TaskInstance;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Runs one task for a supervisor. */
public final class Runtime {
  private static final String LOGGER = "polypod.sdk";
  private static final int CONNECT_TIMEOUT_MILLIS = 30_000;
  private static final int EXIT_TOLD = 128 + 15;
  private static final int REASON = 500;

  private final Bundle bundle;
  private final String commAddress;
  private final String logsAddress;
  private volatile boolean cancelled;

  public Runtime(Bundle bundle, String commAddress, String logsAddress) {
    this.bundle = bundle;
    this.commAddress = commAddress;
    this.logsAddress = logsAddress;
  }

  /** Runs the task; returns the JVM's exit code: 0 only if the task's end was delivered. */
  public int run() {
    Thread task = Thread.currentThread();
    Signals.on(
        () -> {
          if (cancelled) {
            // the task goes on all the same; SIGKILL is near, and shutdown hooks are to run before it
            System.exit(EXIT_TOLD);
          }
          cancelled = true;
          task.interrupt();
        },
        "TERM",
        "INT");
    try (Socket logs = connect(logsAddress)) {
      LogSink.INSTANCE.connect(logs.getOutputStream());
      return supervised();
    } catch (IOException error) {
      LogSink.INSTANCE.abandon();
      System.err.println("polypod-sdk: the logs socket " + logsAddress + " cannot be used: " + error.getMessage());
      return 1;
    }
  }

  private int supervised() {
    try (Comm comm = new Comm(connect(commAddress), () -> cancelled)) {
      Wire.Frame first = comm.first();
      Map<String, Object> answer = first.body == null ? null : Declarations.answer(first.body, bundle);
      if (answer != null) {
        comm.tell(answer);
        return 0;
      }
      Map<String, Object> failure = Comm.failureOf(first);
      if (failure != null) {
        throw new IOException("the supervisor sent an error in place of StartupDetails: " + failure);
      }
      if (first.body == null || !"StartupDetails".equals(first.body.get("type"))) {
        throw new IOException("the first message is not StartupDetails but " + first.body);
      }
      Map<String, Object> end = execute(first.body, comm);
      comm.finish(encoded(first, end));
      return 0;
    } catch (IOException | InterruptedException error) {
      LogSink.INSTANCE.log(LogSink.CRITICAL, LOGGER, "the runtime lost its supervisor", Map.of("error", LogSink.text(error)), error);
      return 1;
    } catch (Inputs.BindingException error) {
      LogSink.INSTANCE.log(LogSink.CRITICAL, LOGGER, "a task handler cannot be declared", Map.of("error", LogSink.text(error)), error);
      return 1;
    } catch (Throwable error) {
      // such as a class that is missing
      LogSink.INSTANCE.log(LogSink.CRITICAL, LOGGER, "the runtime failed", Map.of("error", LogSink.text(error)), error);
      return 1;
    }
  }

  /** Returns the frame of the task's end; of its failure, if something in the end cannot be encoded. */
  private static byte[] encoded(Wire.Frame first, Map<String, Object> end) throws IOException {
    try {
      return Wire.encode(first.id, Wire.whole(end), null);
    } catch (IOException error) {
      LogSink.INSTANCE.log(LogSink.ERROR, LOGGER, "the task's end cannot be encoded", Map.of("error", LogSink.text(error)), error);
      boolean shouldRetry = Boolean.TRUE.equals(Wire.map(first.body.get("ti_context")).get("should_retry"));
      return Wire.encode(first.id, Wire.whole(failure(error, shouldRetry)), null);
    }
  }

  private static Socket connect(String address) throws IOException {
    int colon = address.lastIndexOf(':');
    Socket socket = new Socket();
    socket.setTcpNoDelay(true);
    int port = Integer.parseInt(address.substring(colon + 1));
    socket.connect(new InetSocketAddress(address.substring(0, colon), port), CONNECT_TIMEOUT_MILLIS);
    return socket;
  }

  private Map<String, Object> execute(Map<String, Object> details, Comm comm) {
    Map<String, Object> ti = Wire.map(details.get("ti"));
    Map<String, Object> tiContext = Wire.map(details.get("ti_context"));
    Map<String, Object> dagRun = Wire.map(tiContext.get("dag_run"));
    boolean shouldRetry = Boolean.TRUE.equals(tiContext.get("should_retry"));
    Object mapIndex = ti.get("map_index");
    TaskInstance instance =
        new TaskInstance(
            (String) ti.get("id"),
            (String) ti.get("dag_id"),
            (String) ti.get("run_id"),
            (String) ti.get("task_id"),
            ((Number) ti.get("try_number")).intValue(),
            mapIndex instanceof Number ? ((Number) mapIndex).intValue() : -1);
    DagRun run =
        new DagRun(
            (String) dagRun.get("dag_id"),
            (String) dagRun.get("run_id"),
            (String) dagRun.get("run_type"),
            instant(dagRun.get("logical_date")),
            instant(dagRun.get("data_interval_start")),
            instant(dagRun.get("data_interval_end")),
            dagRun.get("conf") instanceof Map ? Wire.map(dagRun.get("conf")) : Map.of());
    Class<?> task = bundle.find(instance.dagId, instance.taskId);
    if (task == null) {
      Map<String, Object> fields = Map.of("dag_id", instance.dagId, "task_id", instance.taskId, "dags", bundle.tasks());
      LogSink.INSTANCE.log(LogSink.ERROR, LOGGER, "the bundle does not hold this task", fields, null);
      return end("TaskState", "removed");
    }
    SupervisorClient client = new SupervisorClient(comm, instance, tiContext.get("next_method") != null);
    try {
      call(task, new RunningContext(instance, run), client, tiContext);
      Map<String, Object> success = end("SucceedTask", "success");
      client.addOutlets(success);
      return success;
    } catch (SuspendException wait) {
      Map<String, Object> fields = Map.of("for", message(wait));
      LogSink.INSTANCE.log(LogSink.INFO, LOGGER, "the task waits", fields, null);
      return Suspension.messageOf(wait);
    } catch (SkipException skip) {
      Map<String, Object> fields = Map.of("reason", message(skip));
      LogSink.INSTANCE.log(LogSink.INFO, LOGGER, "the task asked to be skipped", fields, null);
      return end("TaskState", "skipped");
    } catch (Throwable error) {
      LogSink.INSTANCE.log(LogSink.ERROR, LOGGER, "the task failed", Map.of("error", LogSink.text(error)), error);
      return failure(error, shouldRetry);
    }
  }

  private static void call(Class<?> task, Context context, Client client, Map<String, Object> tiContext)
      throws Exception {
    List<?> bindings = (List<?>) tiContext.get("arg_bindings");
    // it is in every context of schema 2026-10-30, and in none before
    boolean olderSchema = !tiContext.containsKey("multi_team");
    Object instance = Registration.make(task);
    if (instance instanceof InputTask) {
      @SuppressWarnings("unchecked")
      InputTask<TaskInput> typed = (InputTask<TaskInput>) instance;
      TaskInput input = (TaskInput) Inputs.bind(Inputs.inputClass(task), bindings, olderSchema, client);
      typed.execute(context, client, input);
      return;
    }
    List<Map<String, Object>> given = new ArrayList<>();
    for (Object binding : bindings == null ? List.of() : bindings) {
      given.add(Wire.map(binding));
    }
    for (Map<String, Object> binding : Inputs.passed(given)) {
      Inputs.warn("the task takes no argument of this name", binding.get("name"));
    }
    ((Task) instance).execute(context, client);
  }

  private static Map<String, Object> failure(Throwable error, boolean shouldRetry) {
    if (!shouldRetry || error instanceof FailException) {
      return end("TaskState", "failed");
    }
    Map<String, Object> retry = end("RetryTask", "up_for_retry");
    String reason = LogSink.whole(message(error));
    int length = reason.codePointCount(0, reason.length());
    // whole characters: half of one could not be sent
    retry.put("retry_reason", length > REASON ? reason.substring(0, reason.offsetByCodePoints(0, REASON)) : reason);
    Duration after = error instanceof RetryException ? ((RetryException) error).after() : null;
    if (after != null) {
      retry.put("retry_delay_seconds", after.getSeconds() + after.getNano() / 1e9);
    }
    return retry;
  }

  /** Returns an exception's message, or else its text; its own methods may throw. */
  private static String message(Throwable error) {
    String message;
    try {
      message = error.getMessage();
    } catch (Throwable broken) {
      message = null;
    }
    return String.valueOf(message == null ? LogSink.text(error) : message);
  }

  private static Map<String, Object> end(String type, String state) {
    Map<String, Object> body = new TreeMap<>();
    body.put("type", type);
    body.put("state", state);
    body.put("end_date", Instant.now().toString());
    return body;
  }

  static Instant instant(Object value) {
    if (value instanceof Instant) {
      return (Instant) value;
    }
    return value instanceof String ? java.time.OffsetDateTime.parse((String) value).toInstant() : null;
  }

  private final class RunningContext implements Context {
    private final TaskInstance instance;
    private final DagRun run;

    RunningContext(TaskInstance instance, DagRun run) {
      this.instance = instance;
      this.run = run;
    }

    @Override
    public TaskInstance getTaskInstance() {
      return instance;
    }

    @Override
    public DagRun getDagRun() {
      return run;
    }

    @Override
    public boolean isCancelled() {
      return cancelled;
    }
  }
}
