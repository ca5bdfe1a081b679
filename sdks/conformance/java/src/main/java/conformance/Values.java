package conformance;

import dev.polypod.sdk.Client;
import dev.polypod.sdk.Context;
import dev.polypod.sdk.InputTask;
import dev.polypod.sdk.Task;
import dev.polypod.sdk.TaskInput;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.sql.Timestamp;
import java.time.Instant;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.Date;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Values on their way around: what a task takes is what it returns, or there is an error. */
final class Values {
  private static final Logger log = LoggerFactory.getLogger("task");

  private Values() {}

  public static class Anything implements TaskInput {
    public Object value;
  }

  /** Returns its argument, whatever it is. */
  public static class Echo implements InputTask<Anything> {
    public void execute(Context context, Client client, Anything input) {
      client.setXCom(input.value);
    }
  }

  public static class Number implements TaskInput {
    public int value;
  }

  /** Takes what has no null. */
  public static class Whole implements InputTask<Number> {
    public void execute(Context context, Client client, Number input) {
      client.setXCom(input.value);
    }
  }

  public static class Types implements TaskInput {
    public Long integer;
    public Integer small;
    public Double number;
    public String text;
    public Instant instant;
    public LocalDate date;
    public Timestamp stamp;
    public Date older;
    public Optional<String> maybe = Optional.empty();
    public BigDecimal decimal;
  }

  /** Takes what Java's own types can hold. */
  public static class Typed implements InputTask<Types> {
    public void execute(Context context, Client client, Types input) {
      client.setXCom(input);
    }
  }

  private static final class Unspeakable {
    @Override
    public String toString() {
      throw new IllegalStateException("it has no text");
    }
  }

  /** Returns a value that only Java has, by the name in the run's params. */
  public static class Special implements Task {
    public void execute(Context context, Client client) throws Exception {
      log.atInfo().addKeyValue("value", new Unspeakable()).log("a failing toString is no reason to end");
      Instant instant = Instant.parse("2026-11-21T10:00:00.123456789Z");
      Map<String, Object> values =
          Map.ofEntries(
              Map.entry("decimal", new BigDecimal("12345678901234567.89")),
              Map.entry("price", new BigDecimal("100.00")),
              Map.entry("tenth", new BigDecimal("0.1")),
              Map.entry("big", new BigInteger("1180591620717411303425")),
              Map.entry("fits", BigInteger.ONE.shiftLeft(60)),
              Map.entry("nan", Double.NaN),
              Map.entry("nested", Map.of("a", List.of(Double.POSITIVE_INFINITY))),
              Map.entry("instant", instant),
              Map.entry("in a map", Map.of("at", instant, "price", new BigDecimal("9.99"))),
              Map.entry("date", LocalDate.parse("2026-11-21")),
              Map.entry("offset", OffsetDateTime.parse("2026-11-21T10:00:00+01:00")),
              Map.entry("timestamp", Timestamp.from(instant)),
              Map.entry("sql date", java.sql.Date.valueOf("2026-11-21")),
              Map.entry("util date", new Date(1795255200000L)),
              Map.entry("optional", Optional.of(List.of(1, 2))),
              Map.entry("nothing", Map.of("a", Optional.empty())),
              Map.entry("bytes", new byte[] {1, 2}),
              Map.entry("text", "cut \ud83d"),
              Map.entry("float", 0.5f));
      Object value = values.get(context.getDagRun().conf.get("special"));
      if (value == null) {
        throw new IllegalArgumentException("there is no such special value");
      }
      client.setXCom(value);
    }
  }
}
