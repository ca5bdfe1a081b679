package dev.polypod.sdk.internal;

import com.fasterxml.jackson.annotation.JsonAutoDetect;
import com.fasterxml.jackson.annotation.PropertyAccessor;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.datatype.jdk8.Jdk8Module;
import com.fasterxml.jackson.datatype.jsr310.JavaTimeModule;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** Between the user's objects and what the wire can hold. Loaded only by tasks that need it. */
final class Json {
  private static final ObjectMapper MAPPER =
      new ObjectMapper()
          .registerModule(new JavaTimeModule())
          .registerModule(new Jdk8Module())
          // after the others: times of java.util and java.sql as exactly as those of java.time
          .registerModule(new OlderTimes())
          .setVisibility(PropertyAccessor.FIELD, JsonAutoDetect.Visibility.PUBLIC_ONLY)
          .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
          .configure(DeserializationFeature.ADJUST_DATES_TO_CONTEXT_TIME_ZONE, false)
          .configure(SerializationFeature.WRITE_DATES_AS_TIMESTAMPS, false)
          .configure(SerializationFeature.WRITE_DURATIONS_AS_TIMESTAMPS, false)
          .configure(SerializationFeature.FAIL_ON_EMPTY_BEANS, false);

  private Json() {}

  /**
   * Returns a value that came over the wire as an object of a type.
   *
   * @throws IllegalArgumentException it does not fit, or a number would be another one
   */
  static <T> T into(Object value, java.lang.reflect.Type type) {
    T made = MAPPER.convertValue(value, MAPPER.constructType(type));
    String problem = changed(value, again(made), "");
    if (problem != null) {
      throw new IllegalArgumentException(problem);
    }
    return made;
  }

  private static Object again(Object made) {
    try {
      return plain(made);
    } catch (IllegalArgumentException error) {
      // what cannot be written was read by a method of its own
      return null;
    }
  }

  /** Returns which number is another one by now; what has another form was the type's own wish. */
  private static String changed(Object before, Object after, String where) {
    if (before instanceof Number && after instanceof Number) {
      return decimal((Number) before).compareTo(decimal((Number) after)) == 0
          ? null
          : where + before + " would become " + after;
    }
    if (before instanceof Map && after instanceof Map) {
      for (Map.Entry<?, ?> entry : ((Map<?, ?>) before).entrySet()) {
        String problem = changed(entry.getValue(), ((Map<?, ?>) after).get(entry.getKey()), where + entry.getKey() + ": ");
        if (problem != null) {
          return problem;
        }
      }
    } else if (before instanceof List && after instanceof List) {
      Iterator<?> others = ((List<?>) after).iterator();
      int index = 0;
      for (Object item : (List<?>) before) {
        String problem = others.hasNext() ? changed(item, others.next(), where + "[" + index++ + "]: ") : null;
        if (problem != null) {
          return problem;
        }
      }
    }
    return null;
  }

  private static BigDecimal decimal(Number number) {
    if (number instanceof BigDecimal) {
      return (BigDecimal) number;
    }
    return number instanceof BigInteger ? new BigDecimal((BigInteger) number) : new BigDecimal(number.toString());
  }

  /**
   * Returns a value that the wire can hold; plain ones as they are.
   *
   * @throws IllegalArgumentException there is no such form of it
   */
  static Object plain(Object value) {
    if (value == null
        || value instanceof String
        || value instanceof Boolean
        || value instanceof Long
        || value instanceof Integer
        || value instanceof Double
        || value instanceof BigDecimal
        || value instanceof BigInteger) {
      return value;
    }
    return MAPPER.convertValue(value, Object.class);
  }

  static String write(Map<String, Object> fields) {
    try {
      return MAPPER.writeValueAsString(fields);
    } catch (com.fasterxml.jackson.core.JsonProcessingException error) {
      throw new IllegalArgumentException(error);
    }
  }
}
