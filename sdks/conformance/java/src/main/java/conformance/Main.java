package conformance;

import dev.polypod.sdk.ArgName;
import dev.polypod.sdk.ArgPosition;
import dev.polypod.sdk.Asset;
import dev.polypod.sdk.AssetEventQuery;
import dev.polypod.sdk.Bundle;
import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.FailException;
import dev.polypod.sdk.InputTask;
import dev.polypod.sdk.Question;
import dev.polypod.sdk.RescheduleException;
import dev.polypod.sdk.RetryException;
import dev.polypod.sdk.Server;
import dev.polypod.sdk.SkipException;
import dev.polypod.sdk.Task;
import dev.polypod.sdk.TaskInput;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** A task for everything that a language SDK must and should be able to do. */
public final class Main {
  private static final Logger log = LoggerFactory.getLogger("task");

  private Main() {}

  public static void main(String[] args) {
    log.info("logged before there is a socket");
    String dag = "conformance";
    Server.create(args)
        .serve(
            new Bundle()
                .register(dag, "success", Success.class)
                .register(dag, "fail", Fail.class)
                .register(dag, "fail_for_good", FailForGood.class)
                .register(dag, "retry_after", RetryAfter.class)
                .register(dag, "skip", Skip.class)
                .register(dag, "crash", Crash.class)
                .register(dag, "exit_zero", ExitZero.class)
                .register(dag, "connection", ReadConnection.class)
                .register(dag, "missing_connection", MissingConnection.class)
                .register(dag, "variables", Variables.class)
                .register(dag, "xcom", XCom.class)
                .register(dag, "bind_by_name", BindByName.class)
                .register(dag, "bind_by_position", BindByPosition.class)
                .register(dag, "bind_leniently", BindByName.class)
                .register(dag, "bind_with_default", BindWithDefault.class)
                .register(dag, "produce", Produce.class)
                .register(dag, "task_state", TaskState.class)
                .register(dag, "asset_state", AssetState.class)
                .register(dag, "asset_emit", AssetEmit.class)
                .register(dag, "asset_read", AssetRead.class)
                .register(dag, "reschedule", Reschedule.class)
                .register(dag, "wait_for_run", WaitForRun.class)
                .register(dag, "ask", Ask.class)
                .register(dag, "note", Note.class)
                .register(dag, "mask", Mask.class)
                .register(dag, "settings", Settings.class)
                .register(dag, "echo", Values.Echo.class)
                .register(dag, "echo_again", Values.Echo.class)
                .register(dag, "echo_last", Values.Echo.class)
                .register(dag, "special", Values.Special.class)
                .register(dag, "typed", Values.Typed.class)
                .register(dag, "whole", Values.Whole.class)
                .register(dag, "busy_pool", BusyPool.class)
                .register(dag, "stubborn", Stubborn.class)
                .register(dag, "half_characters", HalfCharacters.class)
                .register(dag, "concurrent", Concurrent.class)
                .register(dag, "wait", Wait.class)
                .register(dag, "finish_late", Endings.FinishLate.class)
                .register(dag, "half_an_emoji", Endings.HalfAnEmoji.class)
                .register(dag, "broken_exception", Endings.BrokenException.class)
                .register(dag, "run_context", RunContext.class)
                .register(dag, "spam", Spam.class));
  }

  public static class Success implements Task {
    public void execute(Context context, Client client) {
      log.debug("a debug line");
      log.atInfo().addKeyValue("number", 7).addKeyValue("text", "grüße ✓").log("an info line");
      log.warn("a warning line");
      log.error("an error line");
      LoggerFactory.getLogger("noisy.part").debug("a line of a named logger");
      System.getLogger("platform").log(System.Logger.Level.INFO, "a line of System.Logger {0}", 1);
      System.out.println("a line on stdout");
      System.err.println("a line on stderr");
      Map<String, Object> value = new LinkedHashMap<>();
      value.put("text", "grüße ✓");
      value.put("integer", 1L << 53);
      value.put("negative", -5);
      value.put("float", 1.5);
      value.put("flag", true);
      value.put("none", null);
      value.put("list", List.of(1, "two", Map.of("three", 3)));
      client.setXCom(value);
    }
  }

  /** Leaves the common pool full of jobs that do not end. */
  public static class BusyPool implements Task {
    public void execute(Context context, Client client) {
      for (int job = 0; job < 64; job++) {
        java.util.concurrent.CompletableFuture.runAsync(
            () -> {
              try {
                Thread.sleep(600_000);
              } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
              }
            });
      }
      client.setXCom("done");
    }
  }

  public static class Mask implements Task {
    public void execute(Context context, Client client) {
      String secret = String.join("-", "found", "at", "run", "time");
      client.maskSecret(secret);
      log.info("logged in with " + secret);
    }
  }

  /** Goes on whatever it is told, and has a shutdown hook. */
  public static class Stubborn implements Task {
    public void execute(Context context, Client client) {
      Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("the shutdown hook ran")));
      log.info("waiting");
      while (true) {
        try {
          Thread.sleep(300_000);
        } catch (InterruptedException interrupted) {
          log.info("interrupted, and going on");
        }
      }
    }
  }

  /** Logs texts that were cut within a character. */
  public static class HalfCharacters implements Task {
    public void execute(Context context, Client client) {
      String half = "\ud83d";
      log.error("cut " + half);
      log.atError().addKeyValue("value" + half, "\ude00 " + half).log("{} whole \ud83d\ude00", half + half);
      log.error("thrown", new IllegalStateException("cut " + half));
    }
  }

  public static class Fail implements Task {
    public void execute(Context context, Client client) {
      throw new IllegalStateException("this task fails");
    }
  }

  public static class FailForGood implements Task {
    public void execute(Context context, Client client) {
      throw new FailException("this task fails for good");
    }
  }

  public static class RetryAfter implements Task {
    public void execute(Context context, Client client) {
      throw new RetryException(Duration.ofMillis(1500), "again later");
    }
  }

  public static class Skip implements Task {
    public void execute(Context context, Client client) {
      throw new SkipException("nothing to do");
    }
  }

  public static class Crash implements Task {
    public void execute(Context context, Client client) {
      Runtime.getRuntime().halt(7);
    }
  }

  public static class ExitZero implements Task {
    public void execute(Context context, Client client) {
      Runtime.getRuntime().halt(0);
    }
  }

  public static class ReadConnection implements Task {
    public void execute(Context context, Client client) {
      var found = client.getConnection("conformance_db");
      log.info("got a connection {}", found);
      log.atInfo().addKeyValue("field", found.password).log("leaking " + found.password);
      System.out.println("stdout leaks " + found.password);
      System.err.println("stderr leaks " + found.extra);
      client.setXCom(
          Map.of(
              "type", found.type, "host", found.host, "port", found.port, "login", found.login,
              "schema", found.schema, "password_length", found.password.length()));
    }
  }

  public static class MissingConnection implements Task {
    public void execute(Context context, Client client) {
      client.setXCom(client.getConnection("no_such_connection") == null);
    }
  }

  public static class Variables implements Task {
    public void execute(Context context, Client client) {
      String before = client.getVariable("conformance_in");
      client.setVariable("conformance/out", before + "!", "set by a task");
      String after = client.getVariable("conformance/out");
      client.deleteVariable("conformance/out");
      client.setXCom(List.of(before, after, client.getVariable("conformance/out") == null));
    }
  }

  public static class XCom implements Task {
    public void execute(Context context, Client client) {
      Object value = client.getXCom("success");
      client.setXCom("a/key with spaces", Map.of("pushed", true));
      client.setXCom(Map.of("seen", value, "none", client.getXCom("success", "no_such_key") == null));
    }
  }

  public static class Upstream {
    public String text;
  }

  public static class Arguments implements TaskInput {
    public String regionCode;

    @ArgName("row_limit")
    public int limit;

    public Upstream upstream;
  }

  public static class BindByName implements InputTask<Arguments> {
    public void execute(Context context, Client client, Arguments input) {
      client.setXCom(Map.of("region", input.regionCode, "limit", input.limit, "upstream", input.upstream.text));
    }
  }

  public static class Places implements TaskInput {
    @ArgPosition(0)
    public String text;

    @ArgPosition(3)
    public Upstream upstream;

    @ArgPosition(2)
    public List<String> list;

    @ArgPosition(1)
    public long number;
  }

  public static class BindByPosition implements InputTask<Places> {
    public void execute(Context context, Client client, Places input) {
      client.setXCom(
          Map.of(
              "text", input.text, "number", input.number, "list", input.list, "upstream", input.upstream.text));
    }
  }

  public static class One implements TaskInput {
    @ArgPosition(0)
    public String text;
  }

  public static class BindWithDefault implements InputTask<One> {
    public void execute(Context context, Client client, One input) {
      client.setXCom(input.text);
    }
  }

  public static class Produce implements Task {
    public void execute(Context context, Client client) {
      client.setXCom(Map.of("text", "grüße ✓"));
    }
  }

  /** Counts the tries of the task, in its own store. */
  public static class TaskState implements Task {
    public void execute(Context context, Client client) {
      var store = client.getTaskStateStore();
      Map<?, ?> before = (Map<?, ?>) store.get("a/tries");
      long tries = before == null ? 1 : (Long) before.get("Tries") + 1;
      store.set("a/tries", Map.of("Tries", tries));
      store.set("old", 1, Duration.ofNanos(1));
      if (before == null) {
        throw new IllegalStateException("the first try fails");
      }
      boolean old = store.get("old") != null;
      store.delete("a/tries");
      store.clear();
      client.setXCom(List.of(tries, old));
    }
  }

  private static final Asset ASSET = new Asset("conformance_asset", "file:///conformance");

  public static class AssetState implements Task {
    public void execute(Context context, Client client) {
      var byName = client.getAssetStateStore(Asset.byName(ASSET.name));
      byName.set("rows", 3);
      Object rows = client.getAssetStateStore(Asset.byUri(ASSET.uri)).get("rows");
      byName.delete("rows");
      byName.clear();
      client.setXCom(List.of(rows != null, rows, byName.get("rows") != null));
    }
  }

  public static class AssetEmit implements Task {
    public void execute(Context context, Client client) {
      client.emitAssetEvent(ASSET, Map.of("rows", "5"));
    }
  }

  /** Counts the events of the asset, as they are asked for in each way. */
  public static class AssetRead implements Task {
    public void execute(Context context, Client client) {
      List<Integer> counts =
          List.of(
                  AssetEventQuery.of(Asset.byName(ASSET.name)),
                  AssetEventQuery.of(Asset.byUri(ASSET.uri)),
                  AssetEventQuery.of(ASSET).limit(1).descending(),
                  AssetEventQuery.of(Asset.byName(ASSET.name)).after(Instant.now()))
              .stream()
              .map(query -> client.getAssetEvents(query).size())
              .collect(Collectors.toList());
      client.setXCom(counts);
    }
  }

  /** Asks to be started again until a moment that its first attempt has noted. */
  public static class Reschedule implements Task {
    public void execute(Context context, Client client) {
      var store = client.getTaskStateStore();
      if (store.get("due") == null) {
        Instant due = Instant.now().plusSeconds(1);
        store.set("due", due.toString());
        throw new RescheduleException(due);
      }
      Instant due = Instant.parse((String) store.get("due"));
      if (Instant.now().isBefore(due)) {
        throw new RescheduleException(due);
      }
      client.setXCom(context.getTaskInstance().tryNumber);
    }
  }

  /** Starts a run and waits for it. */
  public static class WaitForRun implements Task {
    public void execute(Context context, Client client) {
      String runId = "triggered-" + context.getTaskInstance().runId;
      client.triggerDagRun("conformance", runId, Map.of("a", 1));
      client.setXCom(client.waitForDagRun("conformance", runId));
    }
  }

  public static class Ask implements Task {
    public void execute(Context context, Client client) {
      Question question = new Question("Go on?", List.of("yes", "no"));
      question.defaults = List.of("no");
      question.timeout = Duration.ofHours(1);
      client.setXCom(client.ask(question).chosen);
    }
  }

  public static class Note implements Task {
    public void execute(Context context, Client client) {
      client.updateDagRunNote("a note of the task's");
    }
  }

  /** Returns what a runtime finds of Airflow's configuration. */
  public static class Settings implements Task {
    public void execute(Context context, Client client) {
      Map<String, String> found = new LinkedHashMap<>();
      for (String name :
          List.of(
              "AIRFLOW__API__BASE_URL", "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "AIRFLOW__TRIGGERER__QUEUES_ENABLED",
              "AIRFLOW__STATE_STORE__DEFAULT_RETENTION_DAYS")) {
        found.put(name, System.getenv(name));
      }
      client.setXCom(found);
    }
  }

  public static class Concurrent implements Task {
    public void execute(Context context, Client client) {
      String[] answers = new String[20];
      List<Thread> threads =
          IntStream.range(0, answers.length)
              .mapToObj(i -> new Thread(() -> answers[i] = client.getVariable("conformance_" + i)))
              .collect(Collectors.toList());
      threads.forEach(Thread::start);
      for (Thread thread : threads) {
        try {
          thread.join();
        } catch (InterruptedException interrupted) {
          throw new IllegalStateException(interrupted);
        }
      }
      client.setXCom(Arrays.asList(answers));
    }
  }

  public static class Wait implements Task {
    public void execute(Context context, Client client) throws Exception {
      log.info("waiting");
      try {
        Thread.sleep(300_000);
      } catch (InterruptedException interrupted) {
        log.info("stopping; cleaning up");
        throw new IllegalStateException("ended early, cancelled: " + context.isCancelled());
      }
    }
  }

  public static class RunContext implements Task {
    public void execute(Context context, Client client) {
      var ti = context.getTaskInstance();
      var run = context.getDagRun();
      Map<String, Object> seen = new LinkedHashMap<>();
      seen.put("dag_id", ti.dagId);
      seen.put("task_id", ti.taskId);
      seen.put("run_id", ti.runId);
      seen.put("try_number", ti.tryNumber);
      seen.put("mapped", ti.mapIndex >= 0);
      seen.put("run_dag_id", run.dagId);
      seen.put("conf", run.conf);
      seen.put("has_logical_date", run.logicalDate != null);
      client.setXCom(seen);
    }
  }

  public static class Spam implements Task {
    public void execute(Context context, Client client) {
      Object wanted = context.getDagRun().conf.get("lines");
      int lines = wanted instanceof Number ? ((Number) wanted).intValue() : 50_000;
      for (int number = 0; number < lines; number++) {
        log.atInfo().addKeyValue("number", number).log("spam");
      }
      client.setXCom(lines);
    }
  }
}
