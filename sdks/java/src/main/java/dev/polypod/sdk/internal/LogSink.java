package dev.polypod.sdk.internal;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.time.Instant;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * Sends log records to the supervisor's logs socket, one JSON object a line. What is logged before the socket is
 * connected is kept and sent first, in order.
 */
public final class LogSink {
  /** The one sink of this JVM: loggers exist before anything else does. */
  public static final LogSink INSTANCE = new LogSink();

  public static final int DEBUG = 10;
  public static final int INFO = 20;
  public static final int WARNING = 30;
  public static final int ERROR = 40;
  public static final int CRITICAL = 50;

  private static final Set<String> RESERVED = Set.of("timestamp", "level", "event", "logger");

  private final JsonFactory factory = new JsonFactory();
  private final Map<String, Integer> namespaces = new HashMap<>();
  private final int global;
  private ByteArrayOutputStream buffer = new ByteArrayOutputStream();
  private OutputStream out;

  private LogSink() {
    global = parse(System.getenv("AIRFLOW__LOGGING__LOGGING_LEVEL"), INFO);
    String levels = System.getenv("AIRFLOW__LOGGING__NAMESPACE_LEVELS");
    for (String entry : levels == null ? new String[0] : levels.split("[\\s,]+")) {
      int equals = entry.indexOf('=');
      if (equals > 0) {
        namespaces.put(entry.substring(0, equals), parse(entry.substring(equals + 1), INFO));
      }
    }
  }

  private static int parse(String level, int otherwise) {
    switch (level == null ? "" : level.trim().toLowerCase(Locale.ROOT)) {
      case "critical":
      case "fatal":
        return CRITICAL;
      case "error":
        return ERROR;
      case "warning":
      case "warn":
        return WARNING;
      case "info":
        return INFO;
      case "debug":
        return DEBUG;
      case "notset":
        return 0;
      default:
        return otherwise;
    }
  }

  /** Returns the level of a logger: that of the longest dotted prefix of its name, else the global one. */
  public int levelOf(String logger) {
    String prefix = logger == null ? "" : logger;
    while (!prefix.isEmpty()) {
      Integer level = namespaces.get(prefix);
      if (level != null) {
        return level;
      }
      int dot = prefix.lastIndexOf('.');
      prefix = dot < 0 ? "" : prefix.substring(0, dot);
    }
    return global;
  }

  private static String name(int level) {
    if (level >= CRITICAL) {
      return "critical";
    }
    return level >= ERROR ? "error" : level >= WARNING ? "warning" : level >= INFO ? "info" : "debug";
  }

  /** Logs a record; the caller has looked at the level. */
  public void log(int level, String logger, String event, Map<String, ?> fields, Throwable thrown) {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    try (JsonGenerator json = factory.createGenerator(line)) {
      json.writeStartObject();
      json.writeStringField("timestamp", Instant.now().toString());
      json.writeStringField("level", name(level));
      json.writeStringField("event", event == null ? "null" : whole(event));
      json.writeStringField("logger", whole(logger));
      if (fields != null) {
        for (Map.Entry<String, ?> field : fields.entrySet()) {
          String key = whole(String.valueOf(field.getKey()));
          json.writeFieldName((RESERVED.contains(key) ? "field." : "") + key);
          write(json, field.getValue());
        }
      }
      if (thrown != null) {
        StringWriter trace = new StringWriter();
        try {
          thrown.printStackTrace(new PrintWriter(trace, true));
        } catch (Throwable error) {
          trace.write(thrown.getClass().getName() + " (its message cannot be had: " + error.getClass().getName() + ")");
        }
        json.writeStringField("exception", whole(trace.toString()));
      }
      json.writeEndObject();
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    line.write('\n');
    send(line.toByteArray());
  }

  private static void write(JsonGenerator json, Object value) throws IOException {
    if (value == null) {
      json.writeNull();
    } else if (value instanceof Boolean) {
      json.writeBoolean((Boolean) value);
    } else if (value instanceof Integer || value instanceof Long) {
      json.writeNumber(((Number) value).longValue());
    } else if ((value instanceof Double || value instanceof Float) && Double.isFinite(((Number) value).doubleValue())) {
      json.writeNumber(((Number) value).doubleValue());
    } else {
      json.writeString(whole(text(value)));
    }
  }

  /** Returns a value as text; one whose own method fails must not fail the task that logs it. */
  static String text(Object value) {
    try {
      return String.valueOf(value);
    } catch (Throwable error) {
      return "<" + value.getClass().getName() + ": " + error.getClass().getName() + ">";
    }
  }

  /** Returns a text with U+FFFD for each half of a surrogate pair that has lost the other: UTF-8 has nothing for it. */
  static String whole(String text) {
    int length = text == null ? 0 : text.length();
    for (int at = 0; at < length; at++) {
      if (!Character.isSurrogate(text.charAt(at))) {
        continue;
      }
      if (at + 1 < length && Character.isSurrogatePair(text.charAt(at), text.charAt(at + 1))) {
        at++;
        continue;
      }
      StringBuilder repaired = new StringBuilder(length);
      text.codePoints().map(point -> isHalf(point) ? 0xFFFD : point).forEach(repaired::appendCodePoint);
      return repaired.toString();
    }
    return text;
  }

  private static boolean isHalf(int point) {
    return point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE;
  }

  private synchronized void send(byte[] line) {
    try {
      (out == null ? buffer : out).write(line);
    } catch (IOException gone) {
      System.err.write(line, 0, line.length);
    }
  }

  /** Sends what was kept, and everything from now on, to the socket. */
  synchronized void connect(OutputStream socket) throws IOException {
    buffer.writeTo(socket);
    buffer = null;
    out = socket;
  }

  /** Prints what was kept: there is no socket to send it to. */
  synchronized void abandon() {
    if (out == null) {
      out = System.err;
      try {
        buffer.writeTo(System.err);
      } catch (IOException ignored) {
        // standard error is gone as well
      }
    }
  }
}
