package dev.polypod.sdk.internal;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.slf4j.ILoggerFactory;
import org.slf4j.IMarkerFactory;
import org.slf4j.Logger;
import org.slf4j.Marker;
import org.slf4j.event.KeyValuePair;
import org.slf4j.event.Level;
import org.slf4j.event.LoggingEvent;
import org.slf4j.helpers.BasicMDCAdapter;
import org.slf4j.helpers.BasicMarkerFactory;
import org.slf4j.helpers.LegacyAbstractLogger;
import org.slf4j.helpers.MessageFormatter;
import org.slf4j.spi.LoggingEventAware;
import org.slf4j.spi.MDCAdapter;
import org.slf4j.spi.SLF4JServiceProvider;

/** Makes SLF4J log to the supervisor. */
public final class Slf4jProvider implements SLF4JServiceProvider {
  private final Map<String, Logger> loggers = new ConcurrentHashMap<>();
  private final IMarkerFactory markers = new BasicMarkerFactory();
  private final MDCAdapter mdc = new BasicMDCAdapter();

  @Override
  public ILoggerFactory getLoggerFactory() {
    return name -> loggers.computeIfAbsent(name, key -> new SinkLogger(key, mdc));
  }

  @Override
  public IMarkerFactory getMarkerFactory() {
    return markers;
  }

  @Override
  public MDCAdapter getMDCAdapter() {
    return mdc;
  }

  @Override
  public String getRequestedApiVersion() {
    return "2.0.99";
  }

  @Override
  public void initialize() {}

  private static final class SinkLogger extends LegacyAbstractLogger implements LoggingEventAware {
    private final transient MDCAdapter mdc;
    private final int threshold;

    SinkLogger(String name, MDCAdapter mdc) {
      this.name = name;
      this.mdc = mdc;
      this.threshold = LogSink.INSTANCE.levelOf(name);
    }

    @Override
    public void log(LoggingEvent event) {
      if (level(event.getLevel()) < threshold) {
        return;
      }
      Map<String, Object> fields = context();
      if (event.getKeyValuePairs() != null) {
        for (KeyValuePair pair : event.getKeyValuePairs()) {
          fields.put(pair.key, pair.value);
        }
      }
      String text = MessageFormatter.basicArrayFormat(event.getMessage(), event.getArgumentArray());
      LogSink.INSTANCE.log(level(event.getLevel()), name, text, fields, event.getThrowable());
    }

    @Override
    protected void handleNormalizedLoggingCall(
        Level level, Marker marker, String message, Object[] arguments, Throwable thrown) {
      String text = MessageFormatter.basicArrayFormat(message, arguments);
      LogSink.INSTANCE.log(level(level), name, text, context(), thrown);
    }

    private Map<String, Object> context() {
      Map<String, String> copy = mdc.getCopyOfContextMap();
      return copy == null ? new LinkedHashMap<>() : new LinkedHashMap<>(copy);
    }

    private static int level(Level level) {
      // SLF4J's TRACE is 0, DEBUG 10 and so on
      return Math.max(level.toInt(), 5);
    }

    private boolean enabled(Level level) {
      return level(level) >= threshold;
    }

    @Override
    protected String getFullyQualifiedCallerName() {
      return null;
    }

    @Override
    public boolean isTraceEnabled() {
      return enabled(Level.TRACE);
    }

    @Override
    public boolean isDebugEnabled() {
      return enabled(Level.DEBUG);
    }

    @Override
    public boolean isInfoEnabled() {
      return enabled(Level.INFO);
    }

    @Override
    public boolean isWarnEnabled() {
      return enabled(Level.WARN);
    }

    @Override
    public boolean isErrorEnabled() {
      return enabled(Level.ERROR);
    }
  }
}
