package dev.polypod.sdk.internal;

import java.text.MessageFormat;
import java.util.Map;
import java.util.ResourceBundle;

/** Makes {@link System.Logger} log to the supervisor. */
public final class SystemLoggers extends System.LoggerFinder {
  @Override
  public System.Logger getLogger(String name, Module module) {
    return new SinkLogger(name);
  }

  private static final class SinkLogger implements System.Logger {
    private final String name;
    private final int threshold;

    SinkLogger(String name) {
      this.name = name;
      this.threshold = LogSink.INSTANCE.levelOf(name);
    }

    @Override
    public String getName() {
      return name;
    }

    @Override
    public boolean isLoggable(Level level) {
      return level != Level.OFF && value(level) >= threshold;
    }

    @Override
    public void log(Level level, ResourceBundle texts, String message, Throwable thrown) {
      if (isLoggable(level)) {
        LogSink.INSTANCE.log(value(level), name, text(texts, message), Map.of(), thrown);
      }
    }

    @Override
    public void log(Level level, ResourceBundle texts, String format, Object... parameters) {
      if (isLoggable(level)) {
        String text = text(texts, format);
        if (parameters != null && parameters.length > 0) {
          text = MessageFormat.format(text, parameters);
        }
        LogSink.INSTANCE.log(value(level), name, text, Map.of(), null);
      }
    }

    private static String text(ResourceBundle texts, String message) {
      return texts != null && message != null && texts.containsKey(message) ? texts.getString(message) : message;
    }

    private static int value(Level level) {
      switch (level) {
        case ERROR:
          return LogSink.ERROR;
        case WARNING:
          return LogSink.WARNING;
        case INFO:
          return LogSink.INFO;
        default:
          return level == Level.DEBUG ? LogSink.DEBUG : 5;
      }
    }
  }
}
